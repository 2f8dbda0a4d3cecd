//! The real contracts in the real engine: results, determinism, questions, and every limit's own error.

mod support;

use std::sync::Arc;
use std::time::{Duration, Instant};

use service::rpc::question::Question;
use support::{Bench, SECOND, Scripted, done, ended, invoke, limits, route};
use worker::{Code, Engine, Modules, Outcome, State};

const PATIENT: &str = r#"["940220-1234",{"firstName":"Alfa","lastName":"Testsson","gender":"female","birthDate":"1994-02-20","address":"Example Street 1","contacts":[{"name":"Bravo Testsson","relation":"partner"}],"allergies":[{"substance":"penicillin"}]}]"#;

#[test]
fn a_record_is_routed_created_and_read() {
    let bench = Bench::new("medical-records", &limits());
    let Ok(Outcome::Routed(routed)) = bench.run(route("createMedicalRecord", PATIENT)) else {
        panic!("routed")
    };
    assert_eq!((routed.subject.as_str(), routed.query), ("940220-1234", false));
    assert_eq!(routed.keys, [b"record".to_vec(), b"closed".to_vec()]);

    let create = invoke("createMedicalRecord", PATIENT, false, &[("record", ""), ("closed", "")]);
    let created = done(bench.run(create.clone()));
    assert_eq!(created.response, br#"{"version":1}"#);
    assert_eq!(created.writes.len(), 1);
    assert_eq!(created.events[0].r#type, "record.created");
    assert!(created.fuel > 1000);
    // The same call gives the same bytes, down to the fuel: nothing is left of the one before.
    assert_eq!(done(bench.run(create)), created);

    let record = String::from_utf8(created.writes[0].value.clone()).expect("text");
    let read = done(bench.run(invoke(
        "getMedicalRecord",
        r#"["940220-1234"]"#,
        true,
        &[("record", &record)],
    )));
    assert_eq!(String::from_utf8(read.response).expect("text"), record);
    assert!(read.writes.is_empty());

    let again = bench.run(invoke(
        "createMedicalRecord",
        PATIENT,
        false,
        &[("record", &record), ("closed", "")],
    ));
    let failure = again.expect_err("it exists");
    assert_eq!(
        (failure.code, failure.field.as_str()),
        (Code::Rejected, "personalNumber")
    );
}

#[test]
fn what_a_contract_refuses_keeps_field_and_reason() {
    let bench = Bench::new("medical-records", &limits());
    let failure = bench
        .run(route("createMedicalRecord", r#"["940231-1234"]"#))
        .expect_err("no such day");
    assert_eq!(
        (failure.code, failure.field.as_str()),
        (Code::BadArguments, "personalNumber")
    );
    assert!(
        failure.detail.contains("YYMMDD-NNNN") && !failure.detail.contains("940231"),
        "{failure}"
    );
    let failure = bench.run(route("dropAllRecords", "[]")).expect_err("no such function");
    assert_eq!(failure.code, Code::UnknownFunction);
    let long = format!("[\"{}\"]", "x".repeat(70_000));
    assert_eq!(
        bench.run(route("getMedicalRecord", &long)).expect_err("too long").code,
        Code::BadArguments
    );
}

/// Every hostile function ends in its own word, in time, and what it does is not felt by others.
#[test]
fn hostile_guests_end_in_their_own_error_while_others_are_served() {
    let bench = Bench::new("misbehave", &limits());
    let cases = [
        ("loop", Code::FuelExhausted),
        ("copy", Code::FuelExhausted),
        ("memory", Code::MemoryExceeded),
        ("recursion", Code::StackExhausted),
        ("trap", Code::Trapped),
        ("divide", Code::Trapped),
        ("response", Code::OutputTooLarge),
        ("writes", Code::OutputTooLarge),
        ("value", Code::OutputTooLarge),
        ("same", Code::OutputTooLarge),
        ("events", Code::OutputTooLarge),
        ("key", Code::OutputTooLarge),
        ("policy", Code::OutputTooLarge),
        ("ask", Code::QuestionsExceeded),
        ("submit-history", Code::Trapped),
        ("submit-list", Code::Trapped),
    ];
    let hostile: Vec<_> = cases
        .iter()
        .map(|(function, code)| (function, code, bench.submit(invoke(function, "[]", false, &[]))))
        .collect();
    let served = std::thread::scope(|scope| {
        let others = scope.spawn(|| {
            let mut slowest = Duration::ZERO;
            for _ in 0..200 {
                let started = Instant::now();
                let outcome = ended(&bench.submit(invoke("behave", "[]", false, &[("here", "7")])));
                assert_eq!(done(outcome).response, b"7");
                slowest = slowest.max(started.elapsed());
            }
            slowest
        });
        for (function, code, outcomes) in &hostile {
            let failure = ended(outcomes).expect_err(function);
            assert_eq!(failure.code, **code, "{function}: {failure}");
            assert!(!failure.detail.is_empty());
        }
        others.join().expect("others are served")
    });
    assert!(served < 5 * SECOND, "others waited {served:?}");
}

/// Where fuel is no bound, time is.
#[test]
fn a_call_ends_when_its_time_is_over() {
    let limits = worker::Limits {
        fuel_max: u64::MAX / 2,
        ..limits()
    };
    let bench = Bench::new("misbehave", &limits);
    for function in ["loop", "copy"] {
        let started = Instant::now();
        let failure = bench.run(invoke(function, "[]", false, &[])).expect_err("for ever");
        assert_eq!(failure.code, Code::TimedOut, "{function}");
        assert!(
            (SECOND / 2..2 * SECOND).contains(&started.elapsed()),
            "{:?}",
            started.elapsed()
        );
    }
}

#[test]
fn hostile_routes_and_queries_end_too() {
    let bench = Bench::new("misbehave", &limits());
    for (function, code) in [
        ("route-loop", Code::FuelExhausted),
        ("route-amplify", Code::OutputTooLarge),
        ("route-subject", Code::OutputTooLarge),
        ("route-reads", Code::Trapped),
    ] {
        let failure = bench.run(route(function, "[]")).expect_err(function);
        assert_eq!(failure.code, code, "{function}: {failure}");
    }
    let failure = bench
        .run(invoke("query-writes", "[]", true, &[]))
        .expect_err("a query writes");
    assert_eq!(
        (failure.code, &*failure.detail),
        (Code::Trapped, "a query or a route may not change the ledger")
    );
}

#[test]
fn a_miss_is_asked_for_once_and_an_answer_may_come_late() {
    let bench = Bench::new("misbehave", &limits());
    let (mut peer, outcomes) = Scripted::new();
    peer.state = Arc::new([(b"elsewhere".to_vec(), b"5".to_vec())].into());
    peer.pause = Duration::from_millis(50);
    let asked = peer.asked.clone();
    bench.submit_with(invoke("ask-once", "[]", false, &[("here", "1")]), peer);
    assert_eq!(done(ended(&outcomes)).response, b"5");
    assert!(matches!(asked.lock().as_slice(), [Question::Keys(_)]));

    // Later than the call may take.
    let (mut peer, outcomes) = Scripted::new();
    peer.pause = 10 * SECOND;
    let started = Instant::now();
    bench.submit_with(invoke("ask-once", "[]", false, &[]), peer);
    assert_eq!(ended(&outcomes).expect_err("late").code, Code::TimedOut);
    assert!(started.elapsed() < 2 * SECOND);
}

#[test]
fn guests_that_wait_are_bounded_and_keep_nobody_from_running() {
    let bench = Bench::new("misbehave", &limits());
    let (waits, waiting) = std::sync::mpsc::channel();
    let stalled: Vec<_> = (0..20)
        .map(|_| {
            let (mut peer, outcomes) = Scripted::new();
            peer.pause = SECOND / 4;
            peer.waits = Some(waits.clone());
            bench.submit_with(invoke("ask-once", "[]", false, &[]), peer);
            outcomes
        })
        .collect();
    for _ in 0..limits().waiting_max {
        waiting.recv_timeout(SECOND).expect("they wait");
    }
    let started = Instant::now();
    assert_eq!(
        done(ended(&bench.submit(invoke("behave", "[]", false, &[("here", "7")])))).response,
        b"7"
    );
    assert!(started.elapsed() < SECOND / 5, "{:?}", started.elapsed());
    let busy = stalled
        .iter()
        .map(ended)
        .filter(|outcome| matches!(outcome, Err(failure) if failure.code == Code::Busy));
    assert_eq!(busy.count(), 20 - limits().waiting_max);
}

#[test]
fn a_full_queue_says_busy_at_once() {
    let limits = worker::Limits {
        queue_items_max: 10,
        running_max: 1,
        ..limits()
    };
    let bench = Bench::new("misbehave", &limits);
    let outcomes: Vec<_> = (0..50)
        .map(|_| bench.submit(invoke("loop", "[]", false, &[])))
        .collect();
    let first = outcomes
        .iter()
        .filter_map(|outcomes| outcomes.recv_timeout(Duration::from_millis(5)).ok());
    let busy = first
        .filter(|outcome| matches!(outcome, Err(failure) if failure.code == Code::Busy))
        .count();
    assert!((38..=40).contains(&busy), "{busy}");
}

#[test]
fn modules_are_checked_kept_and_forgotten() {
    let engine = Arc::new(Engine::new(&limits(), 8).expect("an engine"));
    for (bytes, why) in [
        (b"no module".to_vec(), "compile"),
        (b"\0asm\x01\0\0\0".to_vec(), "compile"),
        (b"\0asm\x0d\0\x01\0".to_vec(), "export"),
    ] {
        let failure = engine.compile(&bytes).err().expect("no contract");
        assert_eq!(failure.code, Code::ModuleInvalid);
        assert!(failure.detail.contains(why), "{failure}");
    }

    let modules = Modules::new(engine, 1);
    let (first, second) = (support::component("misbehave"), support::component("medical-records"));
    let (first_digest, second_digest) = (protocol::sha256(&first), protocol::sha256(&second));
    assert!(!modules.expects(&first_digest), "nobody waits for it");
    assert!(matches!(modules.get(&first_digest), State::Wanted));
    assert!(matches!(modules.get(&first_digest), State::Coming));
    assert!(modules.expects(&first_digest));
    assert!(!modules.expects(&first_digest), "once");
    // Other bytes under its name: the right ones may still come.
    assert_eq!(
        modules.add(first_digest, &second).expect_err("other bytes").code,
        Code::ModuleInvalid
    );
    assert!(matches!(modules.get(&first_digest), State::Coming));
    assert!(modules.expects(&first_digest));
    modules.add(first_digest, &first).expect("compiles");
    assert!(matches!(modules.get(&first_digest), State::Ready(_)));
    modules.add(second_digest, &second).expect("compiles");
    assert!(matches!(modules.get(&second_digest), State::Ready(_)));
    assert!(matches!(modules.get(&first_digest), State::Wanted), "one is kept");
}

#[test]
fn packaging_is_deterministic_and_refuses_what_is_no_contract() {
    assert!(worker::package(b"no module").is_err());
    let component = support::component("medical-records");
    let hash = protocol::sha256(&component);
    assert_eq!(protocol::sha256(&support::component("medical-records")), hash);
    let text = String::from_utf8_lossy(&component);
    assert!(!text.contains("wasi"), "no WASI");
    for path in ["/root/", "/home/", ".cargo/registry"] {
        assert!(!text.contains(path), "a path of the building machine: {path}");
    }
}
