//! `call COMPONENT [CALLS]`: what one small call costs, on one thread, on fresh instances.
//!
//! `cargo run --release -p medledger-worker --example call -- target/contracts/medical-records.wasm`

use std::time::{Duration, Instant};

use anyhow::Context as _;
use service::rpc::{self, question::Question};
use worker::{Call, Engine, Failure, Limits, Outcome, Peer};

struct Nobody;

impl Peer for Nobody {
    fn ask(&mut self, _: Question, _: Instant) -> Result<rpc::Answer, Failure> {
        Ok(rpc::Answer::default())
    }
    fn end(self: Box<Self>, _: Result<Outcome, Failure>) {}
}

const RECORD: &str = r#"{"firstName":"Alfa","lastName":"Testsson","gender":"female","birthDate":"1994-02-20","address":"Example Street 1","contacts":[{"name":"Bravo Testsson","relation":"partner"}],"allergies":[{"substance":"penicillin"}]}"#;

#[allow(clippy::print_stdout)]
fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let component = std::fs::read(arguments.next().context("call COMPONENT [CALLS]")?)?;
    let calls: u32 = arguments.next().map_or(Ok(20_000), |calls| calls.parse())?;
    let engine = Engine::new(&Limits::default(), 8)?;
    let started = Instant::now();
    let module = engine.compile(&component)?;
    println!(
        "compile            {:>9.1} ms, {} kB",
        started.elapsed().as_secs_f64() * 1e3,
        component.len() / 1000
    );

    let create = format!(r#"["940220-1234",{RECORD}]"#).into_bytes();
    let attribute = protocol::ledger::Attribute {
        name: "practitioner_role".into(),
        value: "physician".into(),
    };
    let context = |query| rpc::Context {
        tx_id: vec![7; 32],
        query,
        organisation: "HospitalA".into(),
        common_name: "Anna".into(),
        role: "client".into(),
        attributes: vec![attribute.clone()],
        ..rpc::Context::default()
    };
    let absent = |key: &str| rpc::Entry {
        key: key.into(),
        ..rpc::Entry::default()
    };
    let invoke = Call::Invoke {
        function: "createMedicalRecord".into(),
        arguments: create.clone(),
        context: context(false),
        entries: vec![absent("record"), absent("closed")],
    };
    let (outcome, _) = engine.call(&module, invoke.clone(), Box::new(Nobody));
    let Outcome::Done(done) = outcome? else {
        anyhow::bail!("not done")
    };
    let number = br#"["940220-1234"]"#.to_vec();
    let record = rpc::Entry {
        key: b"record".to_vec(),
        present: true,
        value: done.writes[0].value.clone(),
    };
    let get = Call::Invoke {
        function: "getMedicalRecord".into(),
        arguments: number.clone(),
        context: context(true),
        entries: vec![record],
    };
    let list = [
        (
            "route get",
            Call::Route {
                function: "getMedicalRecord".into(),
                arguments: number,
            },
        ),
        ("get", get),
        (
            "route create",
            Call::Route {
                function: "createMedicalRecord".into(),
                arguments: create,
            },
        ),
        ("create", invoke),
    ];
    for (name, call) in list {
        let mut times: Vec<Duration> = Vec::with_capacity(calls as usize);
        for _ in 0..calls {
            let call = call.clone();
            let started = Instant::now();
            let (outcome, _) = engine.call(&module, call, Box::new(Nobody));
            times.push(started.elapsed());
            outcome?;
        }
        times.sort();
        let at = |part: f64| times[((times.len() - 1) as f64 * part) as usize].as_secs_f64() * 1e6;
        println!("{name:<18} {:>9.1} µs p50, {:.1} p99", at(0.5), at(0.99));
    }
    Ok(())
}
