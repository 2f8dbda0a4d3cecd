//! The worker as peers see it: real mTLS, a module on demand, calls, questions, refusals, and its end.

mod support;

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use protocol::identity::Role;
use protocol::testing::{Issue, Keys, Spec, TestIdentity, TestNet, TestOrganisation, serial_of};
use service::Tasks;
use service::calls::Work;
use service::duplex::Duplex;
use service::health::Health;
use service::identity::{Identity, load_roots};
use service::rpc::from_worker::Message as From;
use service::rpc::question::Question as Asked;
use service::rpc::to_worker::Message as To;
use service::rpc::{self, Answer, Change, Entry, Invocation, Module, Question, Route, ToWorker};
use service::tls::{Target, Trust};
use support::{SECOND, component, context};
use tempfile::TempDir;

const PATIENT: &str =
    r#"["940220-1234",{"firstName":"Alfa","lastName":"Testsson","gender":"other","address":"Example Street 1"}]"#;
const NUMBER: &str = r#"["940220-1234"]"#;

struct World {
    hospital: TestOrganisation,
    relief: TestOrganisation,
    directory: TempDir,
    tasks: Tasks,
    address: String,
    health: String,
}

impl World {
    async fn start() -> Self {
        let organisations = ["HospitalA", "ReliefOrg"].map(|name| TestOrganisation::new(1, name, Keys::P256));
        Self::with(organisations, None).await
    }

    /// The worker knows the members by the genesis, if there is one.
    async fn with([hospital, relief]: [TestOrganisation; 2], genesis: Option<Vec<u8>>) -> Self {
        let directory = tempfile::tempdir().expect("temporary directory");
        let roots = directory.path().join("roots");
        std::fs::create_dir(&roots).expect("create");
        for organisation in [&hospital, &relief] {
            std::fs::write(
                roots.join(format!("{}.pem", organisation.msp_id)),
                organisation.root_pem(),
            )
            .expect("write");
        }
        let identity = directory.path().join("worker");
        hospital.identity("worker0").write(&identity).expect("write");
        let members = match &genesis {
            Some(genesis) => {
                std::fs::write(directory.path().join("genesis.bin"), genesis).expect("write");
                "genesis = 'genesis.bin'"
            }
            None => "roots = 'roots'",
        };
        let text = format!(
            "identity = 'worker'\n{members}\nlisten = '127.0.0.1:0'\nhealth = '127.0.0.1:0'\n\
             [limits]\ncall_ms_max = 1000\n"
        );
        let file = directory.path().join("worker.toml");
        std::fs::write(&file, text).expect("write");
        let config: worker::Config = service::settings::load(&file).expect("settings");
        let tasks = Tasks::new();
        let handle = worker::start(&config, &tasks, &Health::new()).await.expect("a worker");
        let (address, health) = (format!("localhost:{}", handle.listen.port()), handle.health.to_string());
        Self {
            hospital,
            relief,
            directory,
            tasks,
            address,
            health,
        }
    }

    fn connect(&self, tasks: &Tasks, identity: &TestIdentity) -> Peer {
        let directory = tempfile::tempdir_in(self.directory.path()).expect("temporary directory");
        identity.write(directory.path()).expect("write");
        let identity = Arc::new(Identity::load(directory.path()).expect("an identity"));
        let members = load_roots(&self.directory.path().join("roots")).expect("roots");
        let trust = Trust::load(identity, members, None).expect("trust");
        let channel = trust
            .channel(&Target::new(&self.address, Role::Worker, Some("HospitalA")))
            .expect("a channel");
        let duplex = Duplex::<Work>::start(tasks, channel, service::mux::Config::default());
        Peer {
            duplex,
            state: Arc::default(),
            modules_sent: Arc::default(),
        }
    }
}

/// A peer with one subject's state.
#[derive(Clone)]
struct Peer {
    duplex: Duplex<Work>,
    state: Arc<Mutex<BTreeMap<Vec<u8>, Vec<u8>>>>,
    modules_sent: Arc<Mutex<usize>>,
}

fn to(message: To) -> ToWorker {
    ToWorker {
        message: Some(message),
        ..Default::default()
    }
}

impl Peer {
    async fn call(&self, contract: &'static str, call: To) -> Result<From, String> {
        let mut exchange = self.duplex.open(to(call)).map_err(|error| error.to_string())?;
        loop {
            match exchange
                .next(20 * SECOND)
                .await
                .map_err(|error| error.to_string())?
                .message
            {
                Some(From::NeedModule(need)) => {
                    *self.modules_sent.lock() += 1;
                    let module = Module {
                        digest: need.digest,
                        component: component(contract),
                    };
                    self.duplex
                        .send_alone(to(To::Module(module)))
                        .map_err(|error| error.to_string())?;
                }
                Some(From::Question(Question {
                    question: Some(question),
                })) => {
                    exchange
                        .send(to(To::Answer(self.answer(question))))
                        .map_err(|error| error.to_string())?;
                }
                Some(last) => return Ok(last),
                None => return Err("an empty message".into()),
            }
        }
    }

    fn answer(&self, question: Asked) -> Answer {
        let state = self.state.lock();
        match question {
            Asked::Keys(wanted) => {
                let entries = wanted.keys.into_iter().map(|key| {
                    let value = state.get(&key).cloned();
                    Entry {
                        key,
                        present: value.is_some(),
                        value: value.unwrap_or_default(),
                    }
                });
                Answer {
                    entries: entries.collect(),
                    ..Default::default()
                }
            }
            Asked::History(wanted) => {
                let value = state.get(&wanted.key).cloned().unwrap_or_default();
                let change = Change {
                    tx_id: vec![1; 32],
                    function: "createMedicalRecord".into(),
                    value,
                    ..Default::default()
                };
                Answer {
                    changes: vec![change],
                    ..Default::default()
                }
            }
            _ => Answer {
                problem: Some(rpc::Problem {
                    code: "not_found".into(),
                    ..Default::default()
                }),
                ..Default::default()
            },
        }
    }

    async fn invoke(
        &self,
        contract: &'static str,
        function: &str,
        arguments: &str,
        query: bool,
    ) -> Result<rpc::Done, rpc::Failed> {
        let invocation = Invocation {
            digest: protocol::sha256(&component(contract)).to_vec(),
            function: function.into(),
            arguments: arguments.into(),
            context: Some(context(query)),
            entries: Vec::new(), // everything is a miss
        };
        match self.call(contract, To::Invoke(invocation)).await.expect("an answer") {
            From::Done(done) => {
                for write in &done.writes {
                    self.state.lock().insert(write.key.clone(), write.value.clone());
                }
                Ok(done)
            }
            From::Failed(failed) => Err(failed),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_is_served() {
    let world = World::start().await;
    let ours = Tasks::new();
    let peer = world.connect(&ours, world.hospital.identity("peer0"));

    let digest = protocol::sha256(&component("medical-records")).to_vec();
    let route = Route {
        digest,
        function: "createMedicalRecord".into(),
        arguments: PATIENT.into(),
    };
    // Many at once: the module is asked for once.
    let routes = (0..50).map(|_| peer.call("medical-records", To::Route(route.clone())));
    for routed in futures::future::join_all(routes).await {
        let Ok(From::Routed(routed)) = routed else {
            panic!("{routed:?}")
        };
        assert_eq!(routed.subject, "940220-1234");
    }
    assert_eq!(*peer.modules_sent.lock(), 1);

    let records = "medical-records";
    let created = peer
        .invoke(records, "createMedicalRecord", PATIENT, false)
        .await
        .expect("created");
    assert_eq!(created.response, br#"{"version":1}"#);
    let again = peer
        .invoke(records, "createMedicalRecord", PATIENT, false)
        .await
        .expect_err("exists");
    assert_eq!(
        (again.code.as_str(), again.field.as_str()),
        ("rejected", "personalNumber")
    );
    let got = peer
        .invoke(records, "getMedicalRecord", NUMBER, true)
        .await
        .expect("read");
    assert!(String::from_utf8(got.response).expect("text").contains("Testsson"));
    let history = peer
        .invoke(records, "getHistoryForRecord", NUMBER, true)
        .await
        .expect("history");
    assert!(
        String::from_utf8(history.response)
            .expect("text")
            .contains(r#""function":"createMedicalRecord""#)
    );
    let list = peer
        .invoke(records, "queryAllRecords", "[]", true)
        .await
        .expect_err("this peer has no lists");
    assert_eq!(list.code, "unanswered");

    // Hostile guests beside everything else.
    let hostile = ["loop", "memory", "recursion", "trap", "response", "ask"];
    let hostile = futures::future::join_all(hostile.map(|function| peer.invoke("misbehave", function, "[]", false)));
    let friendly = (0..100).map(|_| peer.invoke(records, "getMedicalRecord", NUMBER, true));
    let (hostile, friendly) = tokio::join!(hostile, futures::future::join_all(friendly));
    assert!(friendly.iter().all(Result::is_ok));
    let words: Vec<_> = hostile
        .into_iter()
        .map(|outcome| outcome.expect_err("hostile").code)
        .collect();
    let expected = [
        "fuel_exhausted",
        "memory_exceeded",
        "stack_exhausted",
        "trapped",
        "output_too_large",
        "questions_exceeded",
    ];
    assert_eq!(words, expected);

    world.tasks.cancel();
    tokio::time::timeout(20 * SECOND, world.tasks.wait(15 * SECOND))
        .await
        .expect("in time")
        .expect("drains");
    ours.cancel();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_peers_of_the_own_organisation_are_served() {
    let world = World::start().await;
    let ours = Tasks::new();
    let route = Route {
        digest: vec![0; 32],
        function: "getMedicalRecord".into(),
        arguments: NUMBER.into(),
    };
    let bad = Route {
        digest: vec![0; 3],
        ..route.clone()
    };
    let client = world.hospital.issue(Role::Client, "clerk", Issue::default());
    for stranger in [world.relief.identity("peer0"), &client] {
        let outcome = world
            .connect(&ours, stranger)
            .call("medical-records", To::Route(route.clone()))
            .await;
        let served = matches!(outcome, Ok(From::Routed(_) | From::NeedModule(_)));
        assert!(
            !served && !matches!(&outcome, Ok(From::Failed(failed)) if failed.code == "module_invalid"),
            "{outcome:?}"
        );
    }
    let peer = world.connect(&ours, world.hospital.identity("peer0"));
    let Ok(From::Failed(failed)) = peer.call("medical-records", To::Route(bad)).await else {
        panic!("served")
    };
    assert_eq!(failed.code, "module_invalid");
    assert!(!world.health.is_empty());
    world.tasks.cancel();
    ours.cancel();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_the_genesis_revokes_is_not_served() {
    let seed = 1;
    let net = TestNet::with(Spec {
        organisations: vec!["HospitalA".to_owned(), "ReliefOrg".to_owned()],
        seed,
        keys: Keys::P256,
        revoked: BTreeMap::from([("HospitalA".to_owned(), vec![serial_of(seed, "HospitalA", "peer1")])]),
        ..Spec::default()
    });
    let genesis = net.genesis_bytes();
    let organisations: [TestOrganisation; 2] = net.organisations.try_into().ok().expect("two");
    let world = World::with(organisations, Some(genesis)).await;
    let ours = Tasks::new();
    // Whoever is served is told what is wrong with this.
    let bad = || {
        To::Route(Route {
            digest: vec![0; 3],
            ..Default::default()
        })
    };
    let kept = world.connect(&ours, world.hospital.identity("peer0"));
    let served = kept.call("medical-records", bad()).await;
    assert!(
        matches!(&served, Ok(From::Failed(failed)) if failed.code == "module_invalid"),
        "{served:?}"
    );
    let revoked = world.connect(&ours, world.hospital.identity("peer1"));
    let refused = revoked.call("medical-records", bad()).await;
    refused.expect_err("no connection");
    world.tasks.cancel();
    ours.cancel();
}
