//! The fold over many logs, and what an attacker who knows every published number and this program can find.

mod attack;

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use proptest::prelude::*;

use super::{
    codes::{self, CodeList, Item},
    config::{FacilityConfig, ReportingConfig, Rules},
    csv,
    event::{Age, Beds, Cell, Event, OutcomeChanged, Sex, Site, Triage, Ward},
    fold::Fold,
    follow::Reports,
    report::Report,
};

const PERIOD_S: u64 = 100;
const GRACE_S: u64 = 20;

fn config(threshold: u64) -> ReportingConfig {
    let facility = |name: &str, area: &str| FacilityConfig {
        name: name.to_owned(),
        area: area.to_owned(),
    };
    ReportingConfig {
        contract: "records".to_owned(),
        period_s: PERIOD_S,
        grace_s: GRACE_S,
        deadline_s: 80,
        threshold,
        beds_step: 3,
        since_s: 0,
        keep: 50,
        alert_items: None,
        codes: None,
        facilities: vec![
            facility("A-1", "NORTH"),
            facility("A-2", "NORTH"),
            facility("B-1", "SOUTH"),
        ],
    }
}

/// A short list, so that little hides a cell.
fn codes() -> CodeList {
    let item = |code: &str, section: &str, restricted, alert| Item {
        code: code.to_owned(),
        name: code.to_owned(),
        section: section.to_owned(),
        restricted,
        alert,
    };
    let kind_of_beds = |kind: &str| codes::Beds {
        kind: kind.to_owned(),
        name: kind.to_owned(),
    };
    CodeList {
        version: "1".to_owned(),
        beds: vec![kind_of_beds("general"), kind_of_beds("icu")],
        items: vec![
            item("9", "infectious", false, false),
            item("10", "infectious", false, true),
            item("25", "other", false, false),
            item("28", "other", true, false),
            item("36", "outcome", false, false),
            item("40", "outcome", false, false),
            item("42", "outcome", true, false),
            item("51", "immediate", true, false),
            item("54", "immediate", false, true),
            item("57", "community-risk", false, false),
            item("62", "constraint", false, false),
        ],
    }
}

fn rules(threshold: u64) -> Arc<Rules> {
    let config = config(threshold);
    config.check().expect("legal");
    Arc::new(Rules::new(&config, codes()))
}

fn cell(facility: &str) -> Cell {
    Cell {
        codes: "1".to_owned(),
        facility: facility.to_owned(),
        area: "NORTH".to_owned(),
        triage: Triage::Green,
        items: vec!["9".to_owned()],
        age: Age::Adult,
        sex: Sex::Male,
        outcome: None,
    }
}

fn encounter(facility: &str) -> Event {
    Event::Encounter(cell(facility))
}

fn beds(facility: &str, staffed: u32) -> Event {
    let kind = "general".to_owned();
    Event::Beds(Beds {
        facility: facility.to_owned(),
        beds: vec![Ward {
            kind,
            staffed,
            occupied: 3,
        }],
    })
}

/// Partition, seconds, events.
type Transaction = (u32, u64, Vec<Event>);

/// Applies transactions in turn.
fn folded(fold: &mut Fold, log: &[Transaction]) -> Vec<Report> {
    let mut reports = Vec::new();
    for (partition, time_s, events) in log {
        reports.extend(fold.apply(*partition, time_s * 1_000, events).reports);
    }
    reports
}

fn treated(report: &Report, area: &str) -> Option<u64> {
    report
        .areas
        .iter()
        .find(|told| told.area == area)
        .expect("an area")
        .treated
}

fn many(count: usize, facility: &str) -> Vec<Event> {
    vec![encounter(facility); count]
}

#[test]
fn a_period_is_published_when_it_is_closed_in_every_partition() {
    let mut fold = Fold::new(rules(5), 2);
    let told = folded(&mut fold, &[(0, 1_010, many(5, "A-1")), (0, 1_500, vec![])]);
    assert!(told.is_empty(), "partition 1 said nothing yet");
    assert!(folded(&mut fold, &[(1, 1_090, many(7, "A-1")), (1, 1_119, vec![])]).is_empty());
    let told = folded(&mut fold, &[(1, 1_120, vec![])]);
    assert_eq!(told.len(), 1);
    assert_eq!(
        (told[0].period, told[0].end_s, treated(&told[0], "NORTH")),
        (1_000, 1_100, Some(12))
    );
}

#[test]
fn what_comes_late_is_counted_in_the_oldest_open_period() {
    let mut fold = Fold::new(rules(5), 1);
    let log = [
        (0, 1_010, many(5, "A-1")),
        // Within the grace: still of its own.
        (0, 1_110, vec![]),
        (0, 1_095, many(1, "A-1")),
        (0, 1_120, vec![]),
        // Too late.
        (0, 1_099, many(6, "A-1")),
        (0, 1_220, vec![]),
    ];
    let told: Vec<_> = folded(&mut fold, &log)
        .iter()
        .map(|report| (report.period, treated(report, "NORTH")))
        .collect();
    assert_eq!(told, [(1_000, Some(6)), (1_100, Some(6))]);
}

#[test]
fn other_rules_count_from_the_end_of_what_was_published() {
    let directory = tempfile::tempdir().expect("a directory");
    let kept = directory.path().join("reporting.json");
    let told = |threshold: u64, until: u64| -> Vec<u64> {
        let reports = Reports::open(&config(threshold), 1, &kept).expect("rules");
        for period in 10..until {
            reports.apply(0, period * 100_000, &[]).expect("kept");
        }
        // Past the grace of the last one.
        reports.apply(0, until * 100_000 + 30_000, &[]).expect("kept");
        let starts = reports.list().into_iter().map(|report| report.period);
        starts.map(|start_s| start_s / PERIOD_S).collect()
    };
    assert_eq!(told(5, 12), [10, 11]);
    assert_eq!(told(5, 12), [10, 11], "the same is folded again");
    assert_eq!(told(6, 12), [] as [u64; 0], "who has read them could subtract");
    assert_eq!(told(5, 13), [10, 11, 12], "nobody has read anything of the others'");
    assert_eq!(told(6, 14), [13]);
    assert_eq!(told(6, 15), [13, 14], "as long as the rules are the same");
    assert_eq!(told(5, 16), [15], "nor are the first ones' continued");
}

#[test]
fn a_long_stillness_is_counted_and_not_listed() {
    let mut fold = Fold::new(rules(5), 1);
    fold.apply(0, 1_010_000, &many(5, "A-1"));
    let closed = fold.apply(0, 1_000_000_000, &[]);
    assert_eq!(closed.periods, 10_000 - 10 - 1);
    assert_eq!(closed.reports.len(), 51, "those kept, and the one with people in it");
    assert_eq!(closed.reports[0].period, 1_000);
}

#[test]
fn a_changed_outcome_moves_until_it_is_published() {
    let change = |outcome: &str, former: Option<(&str, u64)>| {
        let mut cell = cell("B-1");
        cell.area = "SOUTH".to_owned();
        cell.outcome = Some(outcome.to_owned());
        Event::Outcome(OutcomeChanged {
            cell,
            former_outcome: former.map(|(outcome, _)| outcome.to_owned()),
            former_time_ms: former.map(|(_, time_s)| time_s * 1_000),
        })
    };
    let log = [
        (0, 1_010, vec![change("40", None); 8]),
        // Open: five of them move.
        (0, 1_020, vec![change("36", Some(("40", 1_010))); 5]),
        (0, 1_120, vec![]),
        // Published: three more count where they are stated, with two new ones.
        (0, 1_130, vec![change("36", Some(("40", 1_010))); 3]),
        (0, 1_131, vec![change("36", None); 2]),
        (0, 1_220, vec![]),
    ];
    let told: Vec<Vec<(String, u64)>> = folded(&mut Fold::new(rules(3), 1), &log)
        .iter()
        .map(|report| report.areas.iter().flat_map(|area| &area.outcomes))
        .map(|outcomes| outcomes.map(|count| (count.key.clone(), count.count)).collect())
        .collect();
    let of = |pairs: &[(&str, u64)]| pairs.iter().map(|(key, n)| ((*key).to_owned(), *n)).collect::<Vec<_>>();
    assert_eq!(told, [of(&[("36", 5), ("40", 3)]), of(&[("36", 5)])]);
}

#[test]
fn beds_completeness_and_timeliness_are_of_statements() {
    let log = [
        (0, 1_010, vec![beds("A-1", 20)]),
        (0, 1_030, vec![beds("A-1", 30), beds("nobody", 1)]),
        (0, 1_085, vec![beds("B-1", 5)]),
        (0, 1_130, vec![beds("B-1", 6)]),
        (0, 1_220, vec![]),
    ];
    let told = folded(&mut Fold::new(rules(5), 1), &log);
    let of = |report: &Report| -> Vec<(bool, bool, Option<u32>)> {
        let of = report.facilities.iter();
        of.map(|told| {
            (
                told.reported,
                told.on_time,
                told.beds.first().map(|beds| beds.available),
            )
        })
        .collect()
    };
    assert_eq!(told[0].facilities_expected, 3);
    assert_eq!((told[0].facilities_reported, told[0].facilities_on_time), (2, 1));
    assert_eq!(
        of(&told[0]),
        [(true, true, Some(25)), (false, false, None), (true, false, Some(0))]
    );
    assert_eq!(
        of(&told[1]),
        [(false, false, Some(25)), (false, false, None), (true, true, Some(1))]
    );
}

#[test]
fn kinds_of_beds_that_the_list_does_not_have_are_told_together() {
    let ward = |kind: &str, staffed, occupied| Ward {
        kind: kind.to_owned(),
        staffed,
        occupied,
    };
    let stated = Event::Beds(Beds {
        facility: "A-1".to_owned(),
        beds: vec![ward("tent-3", 9, 1), ward("icu", 4, 1), ward("room-of-one", 1, 1)],
    });
    let told = folded(
        &mut Fold::new(rules(5), 1),
        &[(0, 1_010, vec![stated]), (0, 1_120, vec![])],
    );
    let beds = told[0].facilities[0].beds.iter();
    let beds: Vec<_> = beds
        .map(|beds| (beds.kind.as_str(), beds.staffed, beds.occupied, beds.available))
        .collect();
    assert_eq!(beds, [("icu", 4, 0, 2), ("other", 10, 0, 8)]);
}

#[test]
fn sites_are_told_by_what_they_lack_and_never_by_what_may_be_of_one_person() {
    let site = |facility: &str, codes: &str, items: &[&str]| {
        Event::Site(Site {
            codes: codes.to_owned(),
            facility: facility.to_owned(),
            items: items.iter().map(ToString::to_string).collect(),
        })
    };
    let log = [
        (0, 1_010, vec![site("A-1", "1", &["62", "54", "9", "none"])]),
        // Taken back within the period: it was stated.
        (0, 1_050, vec![site("A-1", "1", &["57"])]),
        (
            0,
            1_060,
            vec![
                site("B-1", "1", &["51"]),
                site("A-2", "2", &["62"]),
                site("C-1", "1", &["62", "54"]),
            ],
        ),
        (0, 1_130, vec![site("A-1", "1", &[])]),
        (0, 1_220, vec![]),
    ];
    let told = folded(&mut Fold::new(rules(5), 1), &log);
    let items = |report: &Report| -> Vec<Vec<String>> {
        let of = report.facilities.iter();
        of.map(|facility| facility.items.clone()).collect()
    };
    assert_eq!(items(&told[0]), [vec!["57", "62"], vec![], vec![]]);
    let alerts: Vec<_> = told[0]
        .alerts
        .iter()
        .map(|alert| (alert.area.as_str(), alert.item.as_str()))
        .collect();
    assert_eq!(alerts, [("NORTH", "54")]);
    assert!(csv::of(&told[0]).contains("1000,1100,site,NORTH,A-1,62,,,,1\n"));
    assert_eq!(items(&told[1]), [[]; 3] as [[&str; 0]; 3]);
    assert_eq!(told[1].alerts, []);
    assert!(
        told[0].facilities.iter().all(|facility| !facility.reported),
        "of their beds they said nothing"
    );
}

#[test]
fn facilities_and_areas_that_nobody_expects_share_one_label() {
    let mut known = cell("C-1");
    known.area = "SOUTH".to_owned();
    let mut unknown = cell("C-2");
    unknown.area = "NOWHERE".to_owned();
    // An expected facility's area is the ministry's to say.
    let mut elsewhere = cell("A-1");
    elsewhere.area = "SOUTH".to_owned();
    let events = [known, unknown, elsewhere].map(|cell| vec![Event::Encounter(cell); 6]);
    let told = folded(
        &mut Fold::new(rules(5), 1),
        &[(0, 1_010, events.concat()), (0, 1_120, vec![])],
    );
    let areas: Vec<_> = told[0]
        .areas
        .iter()
        .map(|area| (area.area.as_str(), area.treated, area.other_facilities))
        .collect();
    assert_eq!(
        areas,
        [
            ("NORTH", Some(6), None),
            ("SOUTH", Some(6), Some(6)),
            ("other", Some(6), Some(6))
        ]
    );
}

#[test]
fn restricted_items_are_in_no_report_however_many_and_an_alert_is_there_however_few() {
    let mut restricted = cell("A-1");
    restricted.items = vec!["28".to_owned(), "9".to_owned()];
    restricted.outcome = Some("42".to_owned());
    let mut alert = cell("B-1");
    alert.items = vec!["10".to_owned()];
    let mut events = vec![Event::Encounter(restricted); 50];
    events.push(Event::Encounter(alert));
    let told = folded(&mut Fold::new(rules(5), 1), &[(0, 1_010, events), (0, 1_120, vec![])]);
    let json = serde_json::to_value(&told[0]).expect("JSON");
    let north = &json["areas"][0];
    assert_eq!(
        north["items"],
        serde_json::json!([{"item": "9", "age": "over5", "count": 50}])
    );
    assert_eq!(north["outcomes"], serde_json::json!([]));
    assert_eq!(json["alerts"], serde_json::json!([{"area": "SOUTH", "item": "10"}]));
    let table = csv::of(&told[0]);
    assert!(table.contains("1000,1100,item,NORTH,,9,over5,,,50\n"), "{table}");
    assert!(table.contains("1000,1100,alert,SOUTH,,10,,,,1\n"), "{table}");
    assert!(table.lines().all(|line| line.split(',').count() == 10), "{table}");
    assert!(
        table
            .lines()
            .all(|line| !line.contains(",28,") && !line.contains(",42,")),
        "{table}"
    );
}

/// The same transactions, each partition's in its order.
fn read_in_turns(log: &[Transaction], turns: &[usize]) -> Vec<Transaction> {
    let of = |partition| log.iter().filter(move |(of, _, _)| *of == partition).cloned();
    let mut partitions: [VecDeque<Transaction>; 3] = [0, 1, 2].map(|partition| of(partition).collect());
    let mut read: Vec<Transaction> = turns.iter().filter_map(|turn| partitions[*turn].pop_front()).collect();
    read.extend(partitions.into_iter().flatten());
    read
}

fn any_log() -> impl Strategy<Value = Vec<Transaction>> {
    let event = prop_oneof![
        4 => prop::sample::select(vec!["A-1", "A-2", "B-1", "C-1"]).prop_map(encounter),
        1 => prop::sample::select(vec!["A-1", "B-1"]).prop_map(|facility| beds(facility, 9)),
    ];
    let events = prop::collection::vec(event, 0..6);
    // Clocks move on, and disagree by more than the grace.
    prop::collection::vec((0u32..3, 0u64..60, events), 1..120).prop_map(|steps| {
        let steps = steps.into_iter().enumerate();
        steps
            .map(|(at, (partition, off, events))| {
                // A facility is in one partition.
                let events = events.into_iter().filter(|event| match event {
                    Event::Beds(beds) => partition == u32::from(beds.facility == "A-1"),
                    _ => true,
                });
                (partition, 1_000 + 7 * at as u64 + off, events.collect())
            })
            .collect()
    })
}

/// People by period and area, by the rule that `docs/reporting.md` states: his own period, or the oldest open one.
fn people_by_period(log: &[Transaction]) -> BTreeMap<(u64, String), u64> {
    let (mut clocks, mut people) = ([0; 3], BTreeMap::new());
    for (partition, time_s, events) in log {
        let clock = &mut clocks[*partition as usize];
        *clock = (*time_s).max(*clock);
        let period = (time_s / PERIOD_S).max(clock.saturating_sub(GRACE_S) / PERIOD_S);
        for event in events {
            if let Event::Encounter(cell) = event {
                let area = if cell.facility == "B-1" { "SOUTH" } else { "NORTH" };
                *people.entry((period, area.to_owned())).or_default() += 1;
            }
        }
    }
    people
}

proptest! {
    /// Each partition's order is the log's; how the partitions are read against each other is not.
    #[test]
    fn what_is_published_depends_on_the_log_alone(log in any_log(), turns in prop::collection::vec(0usize..3, 120)) {
        let told = folded(&mut Fold::new(rules(3), 3), &log);
        let again = read_in_turns(&log, &turns);
        prop_assert_eq!(again.len(), log.len());
        prop_assert_eq!(told, folded(&mut Fold::new(rules(3), 3), &again));
    }

    /// Periods ascend, none comes twice, and everybody is in exactly one of them, whoever is withheld.
    #[test]
    fn each_period_is_published_once_and_nobody_is_counted_twice(log in any_log()) {
        let mut fold = Fold::new(rules(3), 3);
        let mut told = folded(&mut fold, &log);
        let end = [0, 1, 2].map(|partition| (partition, 100_000, vec![]));
        told.extend(folded(&mut fold, &end));
        prop_assert!(told.is_sorted_by(|a, b| a.period < b.period));
        let expected = people_by_period(&log);
        prop_assert!(expected.keys().all(|(period, _)| told.iter().any(|report| report.period == period * PERIOD_S)));
        for report in &told {
            for area in &report.areas {
                let people = expected.get(&(report.period / PERIOD_S, area.area.clone())).copied().unwrap_or(0);
                prop_assert_eq!(area.treated, (people >= 3).then_some(people), "{} {}", report.period, area.area);
            }
        }
    }
}
