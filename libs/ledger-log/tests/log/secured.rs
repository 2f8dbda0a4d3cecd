//! One real broker that asks for a name and a password, which only a file has.

use std::{fs, io::Write as _, net::TcpListener, time::Duration};

use bytes::Bytes;
use ledger_log::{
    Log,
    kafka::{KafkaLog, KafkaSettings},
};

use crate::{
    Brokers, TURN,
    contract::{partition, spec, take},
    telemetry,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_password_comes_from_a_file() {
    telemetry();
    let _turn = TURN.lock().await;
    let brokers = Brokers::start(1).await;
    let address = with_passwords(&brokers).await;
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("client.properties");
    let mut settings = KafkaSettings::new([address]);
    for (name, value) in [("security.protocol", "sasl_plaintext"), ("sasl.mechanism", "PLAIN")] {
        settings.properties.insert(name.into(), value.into());
    }
    settings.properties_file = Some(file.clone());

    fs::write(&file, "sasl.username=orderer\nsasl.password=guessed\n").unwrap();
    let stranger = KafkaLog::open(&settings).unwrap();
    let refused = tokio::time::timeout(Duration::from_secs(5), stranger.ensure(&[spec("secured.tx", 1)], true)).await;
    assert!(
        !matches!(refused, Ok(Ok(()))),
        "a broker that takes any password shows nothing"
    );

    fs::write(&file, "sasl.username=orderer\nsasl.password=right\n").unwrap();
    let log = KafkaLog::open(&settings).unwrap();
    log.ensure(&[spec("secured.tx", 1)], true).await.unwrap();
    let to = partition("secured.tx", 0);
    assert_eq!(log.append(&to, Bytes::from_static(b"one")).await.unwrap(), 0);
    let mut reader = log.read(&to, 0).await.unwrap();
    assert_eq!(take(&mut reader, 1).await[0].value, Bytes::from_static(b"one"));
}

/// The broker anew, with one more listener that wants SASL.
async fn with_passwords(brokers: &Brokers) -> String {
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let settings = brokers.kafka.directory().join("broker-1/server.properties");
    let text = fs::read_to_string(&settings).unwrap();
    let of = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    let mut more = fs::OpenOptions::new().append(true).open(&settings).unwrap();
    // Of settings that stand twice the last counts.
    for name in ["listeners=", "advertised.listeners="] {
        writeln!(more, "{name}{},SASL://{address}", of(name)).unwrap();
    }
    let protocols = "listener.security.protocol.map=";
    writeln!(more, "{protocols}{},SASL:SASL_PLAINTEXT", of(protocols)).unwrap();
    let module = "org.apache.kafka.common.security.plain.PlainLoginModule";
    writeln!(
        more,
        "listener.name.sasl.sasl.enabled.mechanisms=PLAIN\nlistener.name.sasl.plain.sasl.jaas.config={module} required user_orderer=\"right\";"
    )
    .unwrap();
    brokers.kafka.kill(0).unwrap();
    brokers.kafka.start_broker(0).await.unwrap();
    address.to_string()
}
