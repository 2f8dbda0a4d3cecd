//! The process around an orderer: Kafka, identity, mTLS, health.

use std::{path::PathBuf, sync::Arc, time::Duration};

use anyhow::Context as _;
use ledger_log::kafka::KafkaLog;
use protocol::genesis::Channel;
use service::{Caller, Identity, Role, Tasks, health, renewal, rpc, serve, tls::Trust};

use crate::{Broadcast, Orderer, Parts, config::Config, metrics};

/// How often revocation lists are looked at.
const CRL_PERIOD: Duration = Duration::from_secs(1);

/// Builds everything and starts it; it ends with `tasks`.
pub async fn run(config: Config, tasks: &Tasks) -> anyhow::Result<()> {
    service::metrics::start(Role::Orderer.word(), &metrics::all());
    let genesis = std::fs::read(&config.genesis).with_context(|| config.genesis.display().to_string())?;
    let read = |path: &std::path::PathBuf| std::fs::read(path).with_context(|| path.display().to_string());
    let modules = files(&config.modules)?
        .iter()
        .map(read)
        .collect::<Result<Vec<_>, _>>()?;
    let channel = Channel::from_genesis(&genesis).with_context(|| config.genesis.display().to_string())?;
    let identity = Arc::new(Identity::load(&config.identity)?);
    let health = health::Health::new();
    let trust = Trust::load(identity.clone(), channel.members, config.crls.clone())?;
    trust.watch(tasks, &health, CRL_PERIOD);
    renewal::watch(
        tasks,
        &health,
        &trust,
        config.identity.clone(),
        Duration::from_millis(config.renewal_spread_ms),
    );
    let log = KafkaLog::open(&config.kafka)?;
    let lists = trust.clone();
    let parts = Parts {
        modules,
        revoked: Arc::new(move |certificate| lists.is_revoked(certificate)),
        limits: config.batch.limits(),
        quotas: config.quota,
        bounds: config.bounds,
        allow_unsafe_topics: config.allow_unsafe_topics,
        flush_every_record: config.flush_every_record,
        ..Parts::new(genesis, identity, Arc::new(log))
    };
    let listener = serve::bind(config.listen)
        .await
        .with_context(|| config.listen.to_string())?;
    health::serve(tasks, health.clone(), config.health)
        .await
        .with_context(|| config.health.to_string())?;
    let orderer = Orderer::start(tasks, &health, parts)?;
    let routes = serve::grpc(rpc::orderer_server(Broadcast::new(orderer, tasks.clone())));
    let access = serve::Access::new().allow(rpc::path::ORDERER, |caller: &Caller| caller.role == Role::Peer);
    serve::serve(tasks, listener, trust, routes, access, serve::Config::default())?;
    tracing::info!(listen = %config.listen, health = %config.health, "orderer started");
    Ok(())
}

/// A directory stands for the components in it: a volume's files are named by who filled it.
fn files(modules: &[PathBuf]) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for module in modules {
        if !module.is_dir() {
            found.push(module.clone());
            continue;
        }
        let within = || module.display().to_string();
        for entry in std::fs::read_dir(module).with_context(within)? {
            let path = entry.with_context(within)?.path();
            if path.extension().is_some_and(|extension| extension == "wasm") {
                found.push(path);
            }
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::files;

    #[test]
    fn a_directory_stands_for_its_components() {
        let directory = tempfile::tempdir().expect("directory");
        let at = directory.path().join("a.wasm");
        std::fs::write(&at, b"")
            .and_then(|()| std::fs::write(directory.path().join("genesis.bin"), b""))
            .expect("files");
        let elsewhere = std::path::PathBuf::from("/elsewhere/b.wasm");
        let found = files(&[directory.path().to_owned(), elsewhere.clone()]).expect("readable");
        assert_eq!(found, [at, elsewhere]);
    }
}
