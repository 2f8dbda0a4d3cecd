//! librdkafka's properties: our defaults, the operator's over them, and over those what a file has that nobody
//! else should read. What the ledger relies on is refused in either.

use std::{collections::BTreeMap, fs, path::Path};

use rdkafka::{ClientConfig, config::RDKafkaLogLevel, error::KafkaError};

use super::{KafkaSettings, OpenError};

/// What readers and writers rely on. `bootstrap.servers` comes from `brokers`.
const FIXED: &[&str] = &[
    "bootstrap.servers",
    "metadata.broker.list",
    "enable.idempotence",
    "enable.gapless.guarantee",
    "acks",
    "request.required.acks",
    "transactional.id",
    "max.in.flight",
    "max.in.flight.requests.per.connection",
    "retries",
    "message.send.max.retries",
    "message.timeout.ms",
    "delivery.timeout.ms",
    "message.max.bytes",
    "queue.buffering.max.kbytes",
    "queue.buffering.max.messages",
    "partitioner",
    "group.id",
    "group.instance.id",
    "group.protocol",
    "auto.offset.reset",
    "enable.auto.commit",
    "auto.commit.enable",
    "enable.auto.offset.store",
    "enable.partition.eof",
    "isolation.level",
    "check.crcs",
    "queued.max.messages.kbytes",
    "plugin.library.paths",
];

/// Everything both kinds of client share. Defaults first, the operator's properties over them.
pub(super) fn client_config(settings: &KafkaSettings) -> Result<ClientConfig, OpenError> {
    if settings.brokers.is_empty() {
        return Err(OpenError::NoBrokers);
    }
    let mut config = ClientConfig::new();
    config.set_log_level(RDKafkaLogLevel::Info);
    config.set("bootstrap.servers", settings.brokers.join(","));
    config.set("client.id", "medledger");
    // Back within a second of the broker's return.
    config.set("reconnect.backoff.ms", "20");
    config.set("reconnect.backoff.max.ms", "500");
    // Who leads is asked ever more seldom, down to the greater of these: a second by default, which comes on top of every
    // election, for readers as for appends.
    config.set("retry.backoff.ms", "20");
    config.set("retry.backoff.max.ms", "100");
    config.set("socket.keepalive.enable", "true");
    config.set("socket.nagle.disable", "true");
    config.set("socket.timeout.ms", "10000");
    // A pod's address that is gone does not answer; the broker that came back has another. By default 30 s.
    config.set("socket.connection.setup.timeout.ms", "5000");
    config.set("log.connection.close", "false");
    // Somebody else's open transaction must not hold up readers.
    config.set("isolation.level", "read_uncommitted");
    let mut properties = settings.properties.clone();
    if let Some(file) = &settings.properties_file {
        properties.extend(read(file)?);
    }
    for (name, value) in &properties {
        if FIXED.contains(&name.as_str()) {
            return Err(OpenError::FixedProperty(name.clone()));
        }
        config.set(name, value);
    }
    if properties.contains_key("debug") {
        // Who asks for it means to read it: under `librdkafka=debug`.
        config.set_log_level(RDKafkaLogLevel::Debug);
    }
    // A mistyped property is found here, not at first use, and its value is not repeated.
    config.create_native_config().map_err(open_error)?;
    Ok(config)
}

pub(super) fn open_error(error: KafkaError) -> OpenError {
    match error {
        // (result, description, key, value): the value may be a password, and the description quotes it.
        KafkaError::ClientConfig(code, _, name, _) => OpenError::BadProperty {
            name,
            reason: format!("{code:?}"),
        },
        other => OpenError::Client(other.to_string()),
    }
}

/// Lines `name=value`; empty ones and those that begin with `#` say nothing. No error repeats a line.
fn read(file: &Path) -> Result<BTreeMap<String, String>, OpenError> {
    let refused = |reason: String| OpenError::PropertiesFile {
        file: file.display().to_string(),
        reason,
    };
    let text = fs::read_to_string(file).map_err(|error| refused(error.to_string()))?;
    let says = |line: &&str| !line.is_empty() && !line.starts_with('#');
    let lines = text.lines().map(str::trim).enumerate();
    let properties = lines.filter(|(_, line)| says(line)).map(|(at, line)| {
        let (name, value) = line
            .split_once('=')
            .map(|(name, value)| (name.trim(), value.trim()))
            // A lone password may have such a sign in it, too.
            .filter(|(name, _)| is_name(name))
            .ok_or_else(|| refused(format!("line {}: must be name=value", at + 1)))?;
        Ok((name.to_owned(), value.to_owned()))
    });
    properties.collect()
}

/// Whether librdkafka could call a property so: all of them have dots, but for `debug` and some that are fixed.
fn is_name(name: &str) -> bool {
    let may_be = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._".contains(&byte);
    name == "debug" || FIXED.contains(&name) || name.contains('.') && name.bytes().all(may_be)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_config(name: &str, value: &str, expected: &str) {
        let mut settings = KafkaSettings::new(["127.0.0.1:9"]);
        settings.properties.insert(name.into(), value.into());
        let found = match client_config(&settings) {
            Ok(_) => "ok".to_string(),
            Err(error) => error.to_string(),
        };
        assert!(found.contains(expected), "{name}: {found}");
        assert!(!found.contains("s3cret"), "{name}: {found}");
    }

    #[test]
    fn properties_pass_through_unless_the_ledger_relies_on_them() {
        check_config("security.protocol", "SSL", "ok");
        check_config("ssl.ca.location", "/etc/ca.pem", "ok");
        check_config("compression.type", "lz4", "ok");
        check_config("acks", "1", "acks is fixed");
        check_config("isolation.level", "read_committed", "isolation.level is fixed");
        check_config("security.protokol", "s3cret", "security.protokol is refused");
        check_config("security.protocol", "s3cret", "security.protocol is refused");
    }

    fn opened_with(file: &str) -> Result<ClientConfig, OpenError> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("client.properties");
        fs::write(&path, file).unwrap();
        let mut settings = KafkaSettings::new(["127.0.0.1:9"]);
        settings.properties.insert("sasl.username".into(), "nobody".into());
        settings.properties_file = Some(path);
        client_config(&settings)
    }

    #[test]
    fn a_file_adds_what_nobody_else_may_read() {
        let config = opened_with("# as kcat's\n\nsasl.username = orderer\r\nsasl.password=s3cret=\n").unwrap();
        assert_eq!(
            config.get("sasl.username"),
            Some("orderer"),
            "the file is over the settings"
        );
        assert_eq!(config.get("sasl.password"), Some("s3cret="));
    }

    #[test]
    fn a_file_that_is_refused_is_not_repeated() {
        for (file, expected) in [
            (
                "sasl.username=a\ns3cret",
                "client.properties: line 2: must be name=value",
            ),
            ("czNjcmV0s3cret==", "client.properties: line 1: must be name=value"),
            ("acks=s3cret", "acks is fixed"),
            ("sasl.passwort=s3cret", "sasl.passwort is refused"),
        ] {
            let error = opened_with(file).expect_err(file).to_string();
            assert!(error.contains(expected), "{error}");
            assert!(!error.contains("s3cret"), "{error}");
        }
        let mut settings = KafkaSettings::new(["127.0.0.1:9"]);
        settings.properties_file = Some("/nowhere".into());
        let error = client_config(&settings).expect_err("no file").to_string();
        assert!(error.starts_with("kafka.properties_file /nowhere: "), "{error}");
    }
}
