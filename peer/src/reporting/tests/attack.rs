//! Whoever knows all that is published of two periods, and this program, finds nobody: for every small count that is
//! withheld there are other people with whom the same would have been published, and that count would be another.
//!
//! The other people are looked for by changing one or two of those there are. What is found is a proof; all tables and
//! all that links them are in it, since it is both whole reports that must come out the same.

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
const OUTCOMES: [Option<&str>; 4] = [None, Some("36"), Some("40"), Some("42")];

fn possible(age: Age, sex: Sex) -> bool {
    sex != Sex::FemalePregnant || !matches!(age, Age::Infant | Age::Young)
}

/// Somebody who was treated once, in the first or the second of two periods.
#[derive(Clone, Debug, PartialEq)]
struct Person {
    cell: Cell,
    period: usize,
    /// Of one of the first period: the outcome that was stated in the second.
    later: Option<String>,
}

impl Person {
    /// What was stated of him, by the period in which it was.
    fn outcomes(&self) -> impl Iterator<Item = (usize, &str)> {
        let at_once = self.cell.outcome.iter().map(|outcome| (self.period, outcome.as_str()));
        let later = self.later.iter().filter(|_| self.period == 0);
        at_once.chain(later.map(|outcome| (1, outcome.as_str())))
    }
}

fn published(rules: &Rules, people: &[Person]) -> [Report; 2] {
    let mut tallies = [Tally::default(), Tally::default()];
    for person in people {
        tallies[person.period].encounter(rules, &person.cell);
        for (period, outcome) in person.outcomes() {
            tallies[period].outcome(rules, &person.cell, outcome);
        }
    }
    [0, 1].map(|period| Report::new(rules, period as u64, &tallies[period], &BTreeMap::new()))
}

fn half(cell: &Cell) -> &'static str {
    match cell.age {
        Age::Infant | Age::Young => "under5",
        _ => "over5",
    }
}

fn cells(people: &[Person]) -> Cells {
    let mut cells = Cells::new();
    for person in people {
        let mut count = |period: usize, name: String| *cells.entry(format!("{period} {name}")).or_default() += 1;
        let (cell, period) = (&person.cell, person.period);
        count(period, format!("facility {}", cell.facility));
        count(period, format!("triage {:?}", cell.triage));
        for item in &cell.items {
            count(period, format!("item {item} {}", half(cell)));
            count(period, format!("matrix {item} {:?} {:?}", cell.age, cell.sex));
        }
        for (period, outcome) in person.outcomes() {
            count(period, format!("outcome {outcome}"));
        }
    }
    cells
}

/// All ways in which this person could have been another: in one respect, or in age, sex and items at once.
fn others(person: &Person, at_once: bool) -> Vec<Person> {
    let mut others = Vec::new();
    for outcome in OUTCOMES {
        let outcome = outcome.map(str::to_owned);
        let (mut first, mut second) = (person.clone(), person.clone());
        first.cell.outcome.clone_from(&outcome);
        second.later = outcome.filter(|_| person.period == 0);
        others.extend([first, second].into_iter().filter(|other| other != person));
    }
    let mut push = |change: &dyn Fn(&mut Cell)| {
        let mut other = person.clone();
        change(&mut other.cell);
        if other != *person {
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
fn neighbours(people: &[Person], at_once: bool) -> impl Iterator<Item = Vec<Person>> {
    people.iter().enumerate().flat_map(move |(at, person)| {
        others(person, at_once).into_iter().map(move |other| {
            let mut people = people.to_vec();
            people[at] = other;
            people
        })
    })
}

/// Each with some of one category, of one facility or with one outcome in another, all in one period.
fn moved(people: &[Person]) -> Vec<Vec<Person>> {
    let mut all = Vec::new();
    for period in [0, 1] {
        let mut move_all = |of: &dyn Fn(&Cell) -> bool, change: &dyn Fn(&mut Cell)| {
            let mut moved = people.to_vec();
            for at in 0..people.len() {
                if people[at].period == period && of(&people[at].cell) {
                    change(&mut moved[at].cell);
                    all.push(moved.clone());
                }
            }
        };
        for from in TRIAGE {
            for to in TRIAGE.into_iter().filter(|to| *to != from) {
                move_all(&|cell| cell.triage == from, &|cell| cell.triage = to);
            }
        }
        for from in FACILITIES {
            for to in FACILITIES.into_iter().filter(|to| *to != from) {
                move_all(&|cell| cell.facility == from, &|cell| cell.facility = to.to_owned());
            }
        }
        for from in OUTCOMES {
            for to in OUTCOMES.into_iter().filter(|to| *to != from) {
                move_all(&|cell| cell.outcome.as_deref() == from, &|cell| {
                    cell.outcome = to.map(str::to_owned);
                });
            }
        }
    }
    all
}

/// The small counts that can be no other, as far as such changes show.
fn found<P: PartialEq>(publish: &dyn Fn(&[Person]) -> P, threshold: u64, people: &[Person]) -> Vec<String> {
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

fn any_outcome() -> impl Strategy<Value = Option<String>> {
    let outcome = prop_oneof![5 => Just(None), 6 => Just(Some("36")), 2 => Just(Some("40")), 1 => Just(Some("42"))];
    outcome.prop_map(|outcome| outcome.map(str::to_owned))
}

/// Of `periods` periods.
fn any_person(periods: usize) -> impl Strategy<Value = Person> {
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
    (facility, triage, class, items, any_outcome(), any_outcome(), 0..periods)
        .prop_filter("somebody who can be", |(_, _, (age, sex), ..)| possible(*age, *sex))
        .prop_map(
            move |(facility, triage, (age, sex), items, outcome, later, period)| Person {
                cell: Cell {
                    triage,
                    age,
                    sex,
                    items: items.into_iter().map(str::to_owned).collect(),
                    outcome,
                    ..cell(facility)
                },
                period,
                later: later.filter(|_| periods == 2 && period == 0),
            },
        )
}

fn once(cell: Cell) -> Person {
    Person {
        cell,
        period: 0,
        later: None,
    }
}

#[test]
fn the_search_finds_who_is_badly_hidden() {
    // Small counts are left out and the number of all is told, and nothing else is done: both facilities that are left
    // out must be as full as they can be.
    let mut people = vec![once(cell("A-1")); 8];
    people.extend(vec![once(cell("A-2")); 2]);
    people.extend(vec![once(cell("C-1")); 2]);
    let of = |people: &[Person], name| people.iter().filter(|person| person.cell.facility == name).count();
    let counts = |people: &[Person]| FACILITIES.map(|name| of(people, name));
    let naive = |people: &[Person]| (people.len(), counts(people).map(|count| (count >= 3).then_some(count)));
    assert_eq!(found(&naive, 3, &people), ["0 facility A-2", "0 facility C-1"]);
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
    let person = |age: Age, items: &[&str]| {
        once(Cell {
            age,
            items: items.iter().map(|item| (*item).to_owned()).collect(),
            ..cell("A-1")
        })
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

fn nobody_is_found(threshold: u64, people: &[Person]) -> Result<(), TestCaseError> {
    let rules = rules(threshold);
    let found = found(&|people| published(&rules, people), threshold, people);
    let told = published(&rules, people);
    prop_assert!(found.is_empty(), "{:?} of {:?}", found, told);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 30, max_shrink_iters: 200, ..ProptestConfig::default() })]

    #[test]
    fn nobody_is_found_in_one_period(
        people in prop::collection::vec(any_person(1), 1..25), threshold in prop::sample::select(vec![3u64, 5]),
    ) {
        nobody_is_found(threshold, &people)?;
    }

    /// The default threshold needs more people, or nothing is told.
    #[test]
    fn nobody_is_found_by_the_default_threshold(people in prop::collection::vec(any_person(1), 20..50)) {
        nobody_is_found(10, &people)?;
    }

    /// Of those of the first some have an outcome that was stated in the second.
    #[test]
    fn nobody_is_found_by_two_periods_together(
        people in prop::collection::vec(any_person(2), 6..30), threshold in prop::sample::select(vec![3u64, 5]),
    ) {
        nobody_is_found(threshold, &people)?;
    }
}
