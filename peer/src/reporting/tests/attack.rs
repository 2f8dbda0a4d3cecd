//! Whoever knows all that is published of a period, and this program, finds nobody: for every small count that is
//! withheld there are other people with whom the same would have been published, and that count would be another.
//!
//! The other people are looked for by changing one or two of those there are. What is found is a proof; all tables and
//! all that links them are in it, since it is the whole report that must come out the same.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::reporting::tally::Tally;

/// Every cell that is counted of an area, by what it is.
type Cells = BTreeMap<String, u64>;

const FACILITIES: [&str; 3] = ["A-1", "A-2", "C-1"];
const TRIAGE: [Triage; 4] = [Triage::Red, Triage::Yellow, Triage::Green, Triage::Black];
const AGES: [Age; 5] = [Age::Infant, Age::Young, Age::School, Age::Adult, Age::Old];
const SEXES: [Sex; 3] = [Sex::Male, Sex::FemaleNotPregnant, Sex::FemalePregnant];
const ITEMS: [&str; 4] = ["9", "10", "25", "28"];

fn possible(age: Age, sex: Sex) -> bool {
    sex != Sex::FemalePregnant || !matches!(age, Age::Infant | Age::Young)
}

fn published(rules: &Rules, people: &[Cell]) -> Report {
    let mut tally = Tally::default();
    for cell in people {
        tally.encounter(rules, cell);
    }
    Report::new(rules, 1, &tally, &BTreeMap::new())
}

fn half(cell: &Cell) -> &'static str {
    match cell.age {
        Age::Infant | Age::Young => "under5",
        _ => "over5",
    }
}

fn cells(people: &[Cell]) -> Cells {
    let mut cells = Cells::new();
    for cell in people {
        let mut count = |name: String| *cells.entry(name).or_default() += 1;
        count(format!("facility {}", cell.facility));
        count(format!("triage {:?}", cell.triage));
        for item in &cell.items {
            count(format!("item {item} {}", half(cell)));
            count(format!("matrix {item} {:?} {:?}", cell.age, cell.sex));
        }
    }
    cells
}

/// All ways in which this person could have been another: in one respect, or in age, sex and items at once.
fn others(cell: &Cell, at_once: bool) -> Vec<Cell> {
    let mut others = Vec::new();
    let mut push = |change: &dyn Fn(&mut Cell)| {
        let mut other = cell.clone();
        change(&mut other);
        if other != *cell {
            others.push(other);
        }
    };
    for facility in FACILITIES {
        push(&|other| other.facility = facility.to_owned());
    }
    for triage in TRIAGE {
        push(&|other| other.triage = triage);
    }
    let sets = (1..1 << ITEMS.len()).map(|set| {
        let items = (0..ITEMS.len()).filter(|at| set >> at & 1 == 1);
        items.map(|at| ITEMS[at].to_owned()).collect::<Vec<_>>()
    });
    let sets: Vec<Vec<String>> = sets.collect();
    for items in &sets {
        push(&|other| other.items.clone_from(items));
    }
    for age in AGES {
        for sex in SEXES.into_iter().filter(|sex| possible(age, *sex)) {
            push(&|other| (other.age, other.sex) = (age, sex));
            for items in sets.iter().filter(|_| at_once) {
                push(&|other| {
                    (other.age, other.sex) = (age, sex);
                    other.items.clone_from(items);
                });
            }
        }
    }
    others
}

/// Each with one of the people as another.
fn neighbours(people: &[Cell], at_once: bool) -> impl Iterator<Item = Vec<Cell>> {
    people.iter().enumerate().flat_map(move |(at, cell)| {
        others(cell, at_once).into_iter().map(move |other| {
            let mut people = people.to_vec();
            people[at] = other;
            people
        })
    })
}

/// Each with some of one category, or of one facility, in another.
fn moved(people: &[Cell]) -> Vec<Vec<Cell>> {
    let mut all = Vec::new();
    let mut move_all = |of: &dyn Fn(&Cell) -> bool, change: &dyn Fn(&mut Cell)| {
        let mut moved = people.to_vec();
        for cell in people.iter().enumerate().filter(|(_, cell)| of(cell)).map(|(at, _)| at) {
            change(&mut moved[cell]);
            all.push(moved.clone());
        }
    };
    for from in TRIAGE {
        for to in TRIAGE {
            move_all(&|cell| cell.triage == from, &|cell| cell.triage = to);
        }
    }
    for from in FACILITIES {
        for to in FACILITIES {
            move_all(&|cell| cell.facility == from, &|cell| cell.facility = to.to_owned());
        }
    }
    all
}

/// The small counts that can be no other, as far as such changes show.
fn found<P: PartialEq>(publish: &dyn Fn(&[Cell]) -> P, threshold: u64, people: &[Cell]) -> Vec<String> {
    let told = publish(people);
    let truth = cells(people);
    let small = truth.iter().filter(|(_, count)| (1..threshold).contains(count));
    let mut left: Vec<String> = small.map(|(name, _)| name.clone()).collect();
    let differs = |other: &Cells, name: &String| other.get(name).copied().unwrap_or(0) != truth[name];
    let mut near = Vec::new();
    for one in moved(people).into_iter().chain(neighbours(people, true)) {
        if publish(&one) == told {
            let other = cells(&one);
            left.retain(|name| !differs(&other, name));
        } else {
            near.push(one);
        }
    }
    // Two changes, the first of which is about the cell.
    while let Some(name) = left.first().cloned() {
        let first = near.iter().filter(|one| differs(&cells(one), &name));
        let mut two = first.flat_map(|one| moved(one).into_iter().chain(neighbours(one, false)));
        match two.find(|two| differs(&cells(two), &name) && publish(two) == told) {
            Some(witness) => {
                let other = cells(&witness);
                left.retain(|name| !differs(&other, name));
            }
            None => break,
        }
    }
    left
}

fn any_person() -> impl Strategy<Value = Cell> {
    let items = prop::collection::btree_set(prop::sample::select(ITEMS.to_vec()), 1..3);
    // Some of each are frequent, so that there are counts to be told.
    let facility = prop_oneof![6 => Just("A-1"), 2 => Just("A-2"), 1 => Just("C-1")];
    let triage = prop_oneof![
        5 => Just(Triage::Green), 3 => Just(Triage::Yellow), 1 => Just(Triage::Red), 1 => Just(Triage::Black)
    ];
    let class = prop_oneof![
        5 => Just((Age::Adult, Sex::Male)),
        3 => Just((Age::Young, Sex::FemaleNotPregnant)),
        1 => (prop::sample::select(AGES.to_vec()), prop::sample::select(SEXES.to_vec())),
    ];
    (facility, triage, class, items)
        .prop_filter("somebody who can be", |(_, _, (age, sex), _)| possible(*age, *sex))
        .prop_map(|(facility, triage, (age, sex), items)| Cell {
            triage,
            age,
            sex,
            items: items.into_iter().map(str::to_owned).collect(),
            ..cell(facility)
        })
}

#[test]
fn the_search_finds_who_is_badly_hidden() {
    // Small counts are left out and the number of all is told, and nothing else is done: both facilities that are left
    // out must be as full as they can be.
    let mut people = vec![cell("A-1"); 8];
    people.extend(vec![cell("A-2"); 2]);
    people.extend(vec![cell("C-1"); 2]);
    let counts = |people: &[Cell]| FACILITIES.map(|name| people.iter().filter(|cell| cell.facility == name).count());
    let naive = |people: &[Cell]| (people.len(), counts(people).map(|count| (count >= 3).then_some(count)));
    assert_eq!(found(&naive, 3, &people), ["facility A-2", "facility C-1"]);
    let rules = rules(3);
    assert_eq!(
        found(&|people| published(&rules, people), 3, &people),
        Vec::<String>::new()
    );
}

#[test]
fn two_items_of_the_same_people_are_not_both_divided() {
    // Of four, three have each item, so two have both: all three of one being adult men would say that two of the
    // other are, and not three, which would be told.
    let person = |age: Age, items: &[&str]| Cell {
        age,
        items: items.iter().map(|item| (*item).to_owned()).collect(),
        ..cell("A-1")
    };
    let people = [
        person(Age::School, &["10"]),
        person(Age::Adult, &["10", "9"]),
        person(Age::Adult, &["9"]),
        person(Age::Adult, &["10", "9"]),
    ];
    let rules = rules(3);
    assert_eq!(
        found(&|people| published(&rules, people), 3, &people),
        Vec::<String>::new()
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 30, max_shrink_iters: 200, ..ProptestConfig::default() })]

    #[test]
    fn nobody_is_found(people in prop::collection::vec(any_person(), 1..25), threshold in prop::sample::select(vec![3u64, 5])) {
        let rules = rules(threshold);
        let found = found(&|people| published(&rules, people), threshold, &people);
        prop_assert!(found.is_empty(), "{:?} of {:?}", found, serde_json::to_string(&published(&rules, &people)));
    }
}
