//! What the ministry publishes of a period, once it is closed.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use tokio::time::{Instant, sleep};

use super::CALL_WITHIN;
use crate::{
    network::{
        Network, Spec,
        spec::{OFFICER, RECORDS},
    },
    patients::SEED,
    report::{
        self,
        sample::{self, Load},
    },
    session::Session,
};

/// Long enough for counts to be told, short enough to be waited for.
const PERIOD_S: i64 = 10;

pub fn short_periods(spec: &mut Spec) {
    spec.reporting.set_periods(PERIOD_S, 2);
}

/// Encounters from every facility, beds from all but one, and the first period of them that is published.
pub async fn published(network: &Network) -> Result<(String, ())> {
    let load = Load {
        contract: RECORDS.to_owned(),
        count: 360,
        over: Duration::from_secs(PERIOD_S as u64 + 3),
        silent: 1,
        seed: SEED,
    };
    let organisation = &network.description.spec.reporting.organisation;
    let officer = network.connect(organisation, OFFICER, None)?;
    let sent = sample::send(network, &load).await?;
    let deadline = Instant::now() + CALL_WITHIN;
    loop {
        match told(&officer).await {
            Ok(Some(told)) => return Ok((format!("{} encounters sent; {told}", sent.encounters), ())),
            Err(error) if Instant::now() >= deadline => return Err(error),
            Ok(None) if Instant::now() >= deadline => bail!("no period with them was published"),
            _ => sleep(Duration::from_millis(200)).await,
        }
    }
}

/// The oldest period in which enough people were treated to be told.
async fn told(officer: &Session) -> Result<Option<String>> {
    for period in report::list(officer).await? {
        let report = report::show(officer, &period.period.to_string()).await;
        let report = report.with_context(|| format!("period {}", period.period))?;
        let areas: Vec<u64> = report.areas.iter().filter_map(|area| area.treated).collect();
        if areas.is_empty() {
            continue;
        }
        let numbers: usize = report
            .areas
            .iter()
            .map(|area| area.triage.len() + area.items.len())
            .sum();
        return Ok(Some(format!(
            "a closed period tells {} people in {} areas by {numbers} numbers of {} or more, {} of {} facilities reported",
            areas.iter().sum::<u64>(),
            areas.len(),
            report.threshold,
            report.facilities_reported,
            report.facilities_expected
        )));
    }
    Ok(None)
}
