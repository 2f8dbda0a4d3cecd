//! When a fault is over: every pod is ready, and every gateway acknowledges again.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Result, bail};
use tokio::time::Instant;

use super::{
    cluster::{Cluster, Component, Pod, census},
    pod::Load,
};

const RECOVERED_WITHIN: Duration = Duration::from_secs(420);
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// What there was before any fault.
pub struct Before {
    census: BTreeMap<(Component, String), usize>,
}

impl Before {
    /// Once every pod is ready.
    pub async fn look(cluster: &Cluster) -> Result<Before> {
        let pods = all_ready(cluster, None).await?;
        Ok(Before { census: census(&pods) })
    }
}

async fn all_ready(cluster: &Cluster, before: Option<&Before>) -> Result<Vec<Pod>> {
    let deadline = Instant::now() + RECOVERED_WITHIN;
    loop {
        let pods = cluster.pods().await?;
        let missing = missing(&pods, before);
        if missing.is_empty() && !pods.is_empty() {
            return Ok(pods);
        }
        if Instant::now() >= deadline {
            bail!("not ready within {RECOVERED_WITHIN:?}: {}", missing.join(", "));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Who is not ready, or not there at all.
fn missing(pods: &[Pod], before: Option<&Before>) -> Vec<String> {
    let unready = pods.iter().filter(|pod| !pod.ready);
    let mut missing: Vec<String> = unready.map(|pod| pod.name.clone()).collect();
    let now = census(pods);
    for ((component, organisation), expected) in before.iter().flat_map(|before| &before.census) {
        let there = now.get(&(*component, organisation.clone())).copied().unwrap_or(0);
        if there < *expected {
            missing.push(format!("{} {} of {organisation}", expected - there, component.word()));
        }
    }
    missing
}

/// Returns when it is over.
pub async fn recovered(cluster: &Cluster, before: &Before, load: &Load) -> Result<()> {
    all_ready(cluster, Some(before)).await?;
    // From here on: what was acknowledged while pods were still away shows nothing.
    let from = load.now().await?;
    let again = load.until(RECOVERED_WITHIN, |line| {
        let acknowledges = |name: &String| {
            line.gateways
                .get(name)
                .is_some_and(|counted| counted.last_ms > from.at_ms)
        };
        from.gateways.keys().all(acknowledges)
    });
    again.await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(name: &str, component: Component, ready: bool) -> Pod {
        Pod {
            name: name.into(),
            uid: String::new(),
            node: String::new(),
            ip: String::new(),
            component,
            organisation: "o".into(),
            ready,
            container_id: String::new(),
            data: String::new(),
        }
    }

    #[test]
    fn whoever_is_away_or_not_ready_is_missing() {
        let all = [pod("a", Component::Peer, true), pod("b", Component::Peer, true)];
        let before = Before { census: census(&all) };
        assert!(missing(&all, Some(&before)).is_empty());
        assert_eq!(missing(&all[..1], Some(&before)), ["1 peer of o"]);
        let starting = [pod("a", Component::Peer, true), pod("b", Component::Peer, false)];
        assert_eq!(missing(&starting, Some(&before)), ["b"]);
    }
}
