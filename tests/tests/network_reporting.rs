//! What the ministry's peer publishes on a real network: closed periods, to who may read them, and after a restart the
//! same again.

use std::{collections::BTreeSet, time::Duration};

use medledger_cli::{
    network::{ready, spec::OFFICER},
    report::{
        self, Period,
        sample::{self, Load},
    },
    session::Session,
};
use medledger_tests::network::{PATIENCE, World, small};
use peer::reporting::report::Report;
use tokio::time::{Instant, sleep};

const MINISTRY: &str = "peer0.MinistryOfHealth";

fn session(world: &World, organisation: &str, name: &str) -> Session {
    let session = world.network.connect(organisation, name, None);
    session.expect("a client of the network")
}

/// Until at least so many periods are published.
async fn published(officer: &Session, at_least: usize) -> Vec<Period> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let periods = report::list(officer).await;
        match periods {
            Ok(periods) if periods.len() >= at_least => return periods,
            other => assert!(Instant::now() < deadline, "{other:?}"),
        }
        sleep(Duration::from_millis(100)).await;
    }
}

async fn all(officer: &Session, periods: &[Period]) -> Vec<Report> {
    let mut reports = Vec::new();
    for period in periods {
        let report = report::show(officer, &period.period.to_string()).await;
        reports.push(report.expect("a published period"));
    }
    reports
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn closed_periods_are_published_and_stay_the_same() {
    let mut spec = small();
    spec.reporting.set_periods(5, 1);
    let world = World::up(&spec).await;
    let officer = session(&world, "MinistryOfHealth", OFFICER);
    let load = |seed, count| Load {
        contract: "medical-records".to_owned(),
        count,
        over: Duration::from_secs(12),
        silent: 1,
        seed,
    };
    let sent = sample::send(&world.network, &load(1, 400)).await.expect("the load");
    assert_eq!((sent.encounters, sent.facilities, sent.statements), (400, 4, 3));

    let periods = published(&officer, 2).await;
    let before = all(&officer, &periods).await;
    let treated: u64 = before
        .iter()
        .flat_map(|report| &report.areas)
        .filter_map(|area| area.treated)
        .sum();
    assert!(
        (50..=400).contains(&treated),
        "{treated} people in {} periods",
        before.len()
    );
    let told = before.iter().flat_map(|report| &report.facilities);
    let reported: BTreeSet<&str> = told
        .filter(|facility| facility.reported)
        .map(|facility| facility.facility.as_str())
        .collect();
    assert_eq!(
        reported.len(),
        3,
        "all but the silent one stated their beds: {reported:?}"
    );
    let mut sites = before.iter().flat_map(|report| &report.facilities);
    assert!(
        sites.any(|facility| facility.items.iter().any(|item| item == "62")),
        "the first facility lacks supplies"
    );
    for report in &before {
        let of_areas = report.areas.iter();
        let counts = of_areas.flat_map(|area| area.triage.iter().chain(&area.outcomes));
        assert!(counts.map(|count| count.count).all(|count| count >= report.threshold));
        assert!(
            report
                .areas
                .iter()
                .all(|area| area.items.iter().all(|item| item.item != "28"))
        );
    }

    // Not for others, and not elsewhere.
    for (organisation, name) in [("MinistryOfHealth", "physician"), ("HospitalA", "physician")] {
        let refused = report::list(&session(&world, organisation, name)).await;
        assert!(
            refused.expect_err(name).to_string().starts_with("403"),
            "{name} of {organisation}"
        );
    }

    let health = &world.process(MINISTRY).health;
    let (status, metrics) = ready::get(health, "/metrics").await.expect("metrics");
    assert_eq!(status, 200);
    for name in [
        "medledger_report_triage{area=\"NORTH\"",
        "medledger_report_beds{",
        "medledger_report_facilities_expected 4",
    ] {
        assert!(metrics.contains(name), "{name}");
    }

    // From nothing but the log, with more in it than before.
    world.kill(MINISTRY).await;
    world.start(MINISTRY).await;
    world.until_health(MINISTRY, "replay", "ok").await;
    sample::send(&world.network, &load(2, 100))
        .await
        .expect("the second load");
    let after = published(&officer, periods.len() + 1).await;
    assert_eq!(after[..periods.len()], periods[..], "no period came, went or changed");
    assert_eq!(all(&officer, &periods).await, before);
}
