//! A pod's volume is lost: the claim is deleted with the pod, and both come back empty.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;
use tokio::time::Instant;

use super::{
    cluster::{Cluster, MARK, Pod},
    kubectl::{IGNORE_NOT_FOUND, items, text},
};

const LOST_WITHIN: Duration = Duration::from_secs(120);
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// A pod that waits for a claim longer than this is deleted once more: its set then makes the claim.
const CLAIM_WITHIN: Duration = Duration::from_secs(15);

/// What a claim is marked with that is about to go.
const LOST: &str = "lost";

/// The claim of a pod's data, as its set calls it.
pub fn claim(pod: &Pod) -> String {
    format!("data-{}", pod.name)
}

/// The other way round.
pub fn pod_of(claim: &str) -> &str {
    claim.trim_start_matches("data-")
}

/// The old claim is gone and a new one is there when this returns.
pub async fn lose(cluster: &Cluster, pod: &Pod) -> Result<()> {
    let (kubectl, claim) = (&cluster.kubectl, claim(pod));
    let old = kubectl.get(&["pvc", &claim]).await?;
    let old = text(&old, "/metadata/uid");
    let note = format!("{MARK}={LOST}");
    kubectl.run(&["annotate", "--overwrite", "pvc", &claim, &note]).await?;
    kubectl.run(&["delete", "pvc", &claim, "--wait=false"]).await?;
    let delete = async || kubectl.delete_at_once([pod.name.as_str()], &[IGNORE_NOT_FOUND]).await;
    delete().await?;
    let deadline = Instant::now() + LOST_WITHIN;
    let mut again = Instant::now() + CLAIM_WITHIN;
    loop {
        let found = kubectl.find(&["pvc", &claim]).await?;
        if found.is_some_and(|found| text(&found, "/metadata/uid") != old) {
            return Ok(());
        }
        if Instant::now() >= deadline {
            bail!("{claim} was not made anew within {LOST_WITHIN:?}");
        }
        if Instant::now() >= again {
            delete().await?;
            again = Instant::now() + CLAIM_WITHIN;
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// A deleted claim whose pod is still there would be lost at that pod's next end, whenever that is: it ends now. Those
/// that were marked and not deleted yet stay. Their names.
pub async fn finish(cluster: &Cluster) -> Result<Vec<String>> {
    let kubectl = &cluster.kubectl;
    let listed = kubectl.get(&["pvc", "--selector", &cluster.selector()]).await?;
    let mut finished = Vec::new();
    for marked in items(&listed)
        .iter()
        .filter(|claim| claim["metadata"]["annotations"][MARK] == LOST)
    {
        let claim = text(marked, "/metadata/name");
        if marked.pointer("/metadata/deletionTimestamp").is_some() {
            kubectl.delete_at_once([pod_of(claim)], &[IGNORE_NOT_FOUND]).await?;
            finished.push(claim.to_owned());
        } else {
            kubectl.run(&["annotate", "pvc", claim, &format!("{MARK}-")]).await?;
        }
    }
    Ok(finished)
}

/// What the claim asks for.
pub async fn bytes(cluster: &Cluster, pod: &Pod) -> Result<u64> {
    let claim = cluster.kubectl.get(&["pvc", &claim(pod)]).await?;
    asked(&claim)
}

fn asked(claim: &Value) -> Result<u64> {
    let quantity = text(claim, "/spec/resources/requests/storage");
    let digits = quantity.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit: u64 = match &quantity[digits.len()..] {
        "" => 1,
        "Ki" => 1 << 10,
        "Mi" => 1 << 20,
        "Gi" => 1 << 30,
        "Ti" => 1 << 40,
        "M" => 1_000_000,
        "G" => 1_000_000_000,
        other => bail!("storage: the unit {other:?} is none of Ki, Mi, Gi, Ti, M, G"),
    };
    let count: u64 = digits
        .parse()
        .with_context(|| format!("storage: {quantity:?} is no quantity"))?;
    Ok(count * unit)
}

#[cfg(test)]
mod tests {
    use super::asked;
    use serde_json::json;

    #[test]
    fn quantities() {
        let of = |text: &str| asked(&json!({"spec": {"resources": {"requests": {"storage": text}}}}));
        assert_eq!(of("10Gi").expect("legal"), 10 << 30);
        assert_eq!(of("512").expect("legal"), 512);
        assert!(of("ten").is_err() && of("1Xi").is_err());
    }
}
