//! Policies against a model of Fabric's evaluation, and their text against its grammar.

use proptest::prelude::*;

use super::{sets::signer, *};

fn signed(by: &[(&str, Role)]) -> Vec<Principal> {
    let principal = |(i, (msp_id, role)): (usize, &(&str, Role))| Principal {
        msp_id: (*msp_id).to_owned(),
        role: *role,
        identity: [i as u8; 32],
    };
    by.iter().enumerate().map(principal).collect()
}

fn peers(of: &[&str]) -> Vec<Principal> {
    signed(&of.iter().map(|msp_id| (*msp_id, Role::Peer)).collect::<Vec<_>>())
}

#[track_caller]
fn check(policy: &str, signers: &[Principal], expected: bool) {
    assert_eq!(Policy::parse(policy).unwrap().evaluate(signers), expected, "{policy}");
}

#[track_caller]
fn check_text(text: &str, canonical: &str) {
    assert_eq!(
        Policy::parse(text).map(|policy| policy.to_string()).as_deref(),
        Ok(canonical),
        "{text}"
    );
}

#[track_caller]
fn check_error(text: &str, at: usize, rule: Syntax) {
    assert_eq!(Policy::parse(text), Err(PolicyError::Syntax { at, rule }), "{text}");
}

/// The examples of Fabric's page "Endorsement policies" and of its own tests.
#[test]
fn fabrics_texts_are_accepted() {
    check_text(
        "AND('Org1.member', 'Org2.member', 'Org3.member')",
        "AND('Org1.member', 'Org2.member', 'Org3.member')",
    );
    check_text("OR('Org1.member', 'Org2.member')", "OR('Org1.member', 'Org2.member')");
    check_text(
        "OR('Org1.member', AND('Org2.member', 'Org3.member'))",
        "OR('Org1.member', AND('Org2.member', 'Org3.member'))",
    );
    check_text(
        "OutOf(1, 'Org1.member', 'Org2.member')",
        "OR('Org1.member', 'Org2.member')",
    );
    check_text(
        "OutOf(2, 'Org1.member', 'Org2.member')",
        "AND('Org1.member', 'Org2.member')",
    );
    check_text(
        "OutOf(2, 'Org1.member', 'Org2.member', 'Org3.member')",
        "OutOf(2, 'Org1.member', 'Org2.member', 'Org3.member')",
    );
    check_text(
        "OR(AND('A.member', 'B.member'), OR('C.admin', 'D.member'))",
        "OR(AND('A.member', 'B.member'), OR('C.admin', 'D.member'))",
    );
    check_text(
        "OR('MSP.member', 'MSP.WITH.DOTS.member', 'MSP-WITH-DASHES.member')",
        "OR('MSP.member', 'MSP.WITH.DOTS.member', 'MSP-WITH-DASHES.member')",
    );
    check_text(
        "OR('A.peer', 'B.admin', 'C.orderer', 'D.client')",
        "OR('A.peer', 'B.admin', 'C.orderer', 'D.client')",
    );
    check_text("OutOf('1', 'A.member', 'B.member')", "OR('A.member', 'B.member')");
    check_text("OutOf(0, 'A.member', 'B.member')", "OutOf(0, 'A.member', 'B.member')");
    check_text("OutOf(3, 'A.member', 'B.member')", "OutOf(3, 'A.member', 'B.member')");
}

#[test]
fn case_blanks_and_quotes_are_fabrics() {
    for gate in ["AND", "And", "and"] {
        check_text(&format!("{gate}('A.peer','B.peer')"), "AND('A.peer', 'B.peer')");
    }
    for gate in ["OR", "Or", "or"] {
        check_text(
            &format!(" {gate} ( \"A.peer\" ,\n'B.peer' ) "),
            "OR('A.peer', 'B.peer')",
        );
    }
    for gate in ["OutOf", "OUTOF", "outof"] {
        check_text(
            &format!("{gate}(2,'A.peer','B.peer','C.peer')"),
            "OutOf(2, 'A.peer', 'B.peer', 'C.peer')",
        );
    }
    check_text("AND('A.peer')", "AND('A.peer')");
    check_text("OR('A.peer')", "AND('A.peer')");
    check_error("aND('A.peer')", 0, Syntax::UnknownGate);
    check_error("Outof(1, 'A.peer')", 0, Syntax::UnknownGate);
    check_error("OR('A.Peer')", 3, Syntax::Principal);
    check_error("OR('A.MEMBER')", 3, Syntax::Principal);
}

#[test]
fn errors_name_place_and_rule() {
    check_error("", 0, Syntax::Gate);
    check_error("'A.member'", 0, Syntax::Gate);
    check_error("1", 0, Syntax::Gate);
    check_error("OR('A.member', Bmember)", 15, Syntax::UnknownGate);
    check_error("OR('A.member', 'Bmember')", 15, Syntax::Principal);
    check_error("OR('A.member', '.member')", 15, Syntax::Principal);
    check_error("OR('A.member', 'B member')", 15, Syntax::Principal);
    check_error("OR('A.member', 'B.boss')", 15, Syntax::Principal);
    check_error("OR('A.member', 'B.member", 15, Syntax::Quote);
    check_error("OR('A.member' 'B.member')", 14, Syntax::CommaOrClose);
    check_error("OR('A.member',)", 14, Syntax::Rule);
    check_error("OR()", 3, Syntax::Empty);
    check_error("OR 'A.member'", 3, Syntax::Open);
    check_error("OR('A.member') OR", 15, Syntax::Trailing);
    check_error("OutOf(1)", 7, Syntax::Empty);
    check_error("OutOf(1 'A.member')", 8, Syntax::Comma);
    check_error("OutOf(true, 'A.member')", 6, Syntax::Number);
    check_error("OutOf('A.member', 'B.member')", 6, Syntax::Number);
    check_error("OutOf(1, 2)", 9, Syntax::Rule);
    check_error("OutOf(-1, 'A.member', 'B.member')", 6, Syntax::OutOfRange);
    check_error("OutOf(4, 'A.member', 'B.member')", 6, Syntax::OutOfRange);
    check_error("OutOf(99999999999999999999999999, 'A.member')", 6, Syntax::OutOfRange);
    check_error("OR('Ä.member')", 3, Syntax::Principal);
    check_error("ÖR('A.member')", 0, Syntax::Gate);
}

#[test]
fn bounds() {
    let nested = |depth: usize| format!("{}'A.peer'{}", "OR(".repeat(depth), ")".repeat(depth));
    assert!(Policy::parse(&nested(POLICY_DEPTH_MAX)).is_ok());
    check_error(&nested(POLICY_DEPTH_MAX + 1), 3 * POLICY_DEPTH_MAX, Syntax::Depth);
    let wide = |leaves: usize| format!("OR({})", vec!["'A.peer'"; leaves].join(","));
    assert!(Policy::parse(&wide(POLICY_LEAVES_MAX)).is_ok());
    check_error(&wide(POLICY_LEAVES_MAX + 1), 3 + 9 * POLICY_LEAVES_MAX, Syntax::Leaves);
    assert_eq!(
        Policy::parse(&" ".repeat(POLICY_BYTES_MAX + 1)),
        Err(PolicyError::TooLong)
    );
    let long = "A".repeat(30);
    let text = format!("OR({})", vec![format!("'{long}.peer'"); 107].join(","));
    assert!(text.len() <= POLICY_BYTES_MAX && text.len() + 106 > POLICY_BYTES_MAX);
    assert_eq!(
        Policy::parse(&text),
        Err(PolicyError::TooLong),
        "the canonical text would be too long"
    );
}

#[test]
fn roles() {
    let policies_may_name = [Role::Admin, Role::Peer, Role::Orderer, Role::Client];
    check("OR('A.member')", &signed(&[("A", Role::Worker)]), false);
    assert!(Policy::parse("OR('A.worker')").is_err(), "no policy names a worker");
    for role in policies_may_name {
        check("OR('A.member')", &signed(&[("A", role)]), true);
        for asked in policies_may_name {
            check(&format!("OR('A.{asked}')"), &signed(&[("A", role)]), role == asked);
        }
        check("OR('A.member')", &signed(&[("B", role)]), false);
    }
}

#[test]
fn gates() {
    check("AND('A.peer','B.peer')", &peers(&["B", "A"]), true);
    check("AND('A.peer','B.peer')", &peers(&["A"]), false);
    check("OR('A.peer','B.peer')", &peers(&["B"]), true);
    check("OR('A.peer','B.peer')", &[], false);
    check("OutOf(2,'A.peer','B.peer','C.peer')", &peers(&["C", "X", "A"]), true);
    check("OutOf(2,'A.peer','B.peer','C.peer')", &peers(&["C", "C"]), false);
    check("OutOf(0,'A.peer')", &[], true);
    check("OutOf(2,'A.peer')", &peers(&["A", "A"]), false);
    check("OR('A.peer',AND('B.peer','C.peer'))", &peers(&["B", "C"]), true);
    check("OR('A.peer',AND('B.peer','C.peer'))", &peers(&["B"]), false);
}

#[test]
fn one_certificate_counts_once() {
    check("AND('A.peer','A.peer')", &peers(&["A", "A"]), true);
    let one = peers(&["A"]);
    check("AND('A.peer','A.peer')", &[one[0].clone(), one[0].clone()], false);
    check("AND('A.peer','A.member')", &one, false);
}

/// Surprising, but what `cauthdsl` does; two peers of different opinion would be a fork.
#[test]
fn greed_is_fabrics() {
    // A gate that has enough still takes more.
    check("AND(OR('A.peer','B.peer'),'B.peer')", &peers(&["A", "B"]), false);
    check("AND(OR('A.peer','B.peer'),'B.peer')", &peers(&["B", "B"]), true);
    // The first that fits is taken, though a later place could have nobody else.
    check(
        "AND('A.member','A.admin')",
        &signed(&[("A", Role::Admin), ("A", Role::Peer)]),
        false,
    );
    check(
        "AND('A.member','A.admin')",
        &signed(&[("A", Role::Peer), ("A", Role::Admin)]),
        true,
    );
    // A gate that fails gives back what it took.
    check("OR(AND('A.peer','B.peer'),'A.peer')", &peers(&["A"]), true);
    check("AND(OutOf(0,AND('A.peer','B.peer')),'A.peer')", &peers(&["A"]), true);
    // A gate that is satisfied by nothing keeps what it took all the same.
    check("AND(OutOf(0,'A.peer'),'A.peer')", &peers(&["A"]), false);
}

fn sets(policy: &str) -> Vec<String> {
    let policy = Policy::parse(policy).unwrap();
    let text = |set: Vec<&Leaf>| {
        set.iter()
            .map(|leaf| leaf.msp_id.as_str())
            .collect::<Vec<_>>()
            .join(" ")
    };
    policy.minimal_sets().into_iter().map(text).collect()
}

#[test]
fn minimal_sets_smallest_first() {
    assert_eq!(sets("OR('A.peer','B.peer')"), ["A", "B"]);
    assert_eq!(sets("OutOf(2,'A.peer','B.peer','C.peer')"), ["A B", "A C", "B C"]);
    assert_eq!(sets("OR(AND('A.peer','B.peer'),'C.peer')"), ["C", "A B"]);
    assert_eq!(sets("OR('A.peer',AND('A.peer','B.peer'))"), ["A"]);
    assert_eq!(sets("OutOf(0,'A.peer')"), [""]);
    assert!(sets("OutOf(2,'A.peer')").is_empty());
    assert_eq!(
        sets("AND(OR('A.peer','B.peer'),'B.peer')"),
        ["B B"],
        "greed makes A B useless"
    );
    assert_eq!(
        sets("AND(OR('A.peer','B.peer'),'A.peer','B.peer')"),
        ["A B A B"],
        "greed needs more than the least"
    );
    let many = format!(
        "OutOf(10,{})",
        (0..20).map(|i| format!("'O{i}.peer'")).collect::<Vec<_>>().join(",")
    );
    assert_eq!(sets(&many).len(), POLICY_SETS_MAX);
}

#[test]
fn sets_keep_to_the_living_and_missing_names_the_rest() {
    let policy = Policy::parse("OutOf(2,'A.peer','B.peer','C.peer')").unwrap();
    let alive = |msp_id: &str| msp_id != "A";
    let names = |sets: Vec<Vec<&Leaf>>| -> Vec<Vec<String>> {
        sets.iter()
            .map(|set| set.iter().map(|leaf| leaf.msp_id.clone()).collect())
            .collect()
    };
    assert_eq!(names(policy.minimal_sets_of(&alive)), [["B", "C"]]);
    assert!(policy.missing(&alive).is_empty());

    let only_a = |msp_id: &str| msp_id == "A";
    assert!(policy.minimal_sets_of(&only_a).is_empty());
    assert_eq!(policy.missing(&only_a), ["B", "C"], "either would do");

    let all = Policy::parse("AND('A.peer','B.peer','C.peer','D.peer')").unwrap();
    let two = |msp_id: &str| matches!(msp_id, "A" | "C");
    assert_eq!(all.missing(&two), ["B", "D"]);
    let nested = Policy::parse("OR(AND('A.peer','B.peer','D.peer'),AND('A.peer','E.peer'))").unwrap();
    assert_eq!(nested.missing(&two), ["E"], "the shorter way back");
    assert!(!nested.is_met_by(&two));
    let never = Policy::parse("OutOf(2,'A.peer')").unwrap();
    assert!(!never.is_met_by(&two) && never.missing(&two).is_empty());
}

#[test]
fn organisations_and_members() {
    let policy = Policy::parse("OR('B.peer',AND('A.peer','B.admin'))").unwrap();
    assert_eq!(policy.organisations().into_iter().collect::<Vec<_>>(), ["A", "B"]);
    assert_eq!(policy.check_members(&["A", "B", "C"]), Ok(()));
    assert_eq!(policy.check_members(&["B"]), Err(PolicyError::NotMember("A".into())));
}

fn role() -> impl Strategy<Value = PrincipalRole> {
    prop_oneof![
        3 => Just(PrincipalRole::Is(Role::Peer)),
        2 => Just(PrincipalRole::Member),
        1 => Just(PrincipalRole::Is(Role::Admin)),
        1 => Just(PrincipalRole::Is(Role::Client)),
        1 => Just(PrincipalRole::Is(Role::Orderer)),
    ]
}

fn policies() -> impl Strategy<Value = Policy> {
    let leaf = ("[A-D]|x[.]y-z", role()).prop_map(|(msp_id, role)| Rule::Leaf(Leaf { msp_id, role }));
    let gates = |rule: BoxedStrategy<Rule>| {
        proptest::collection::vec(rule, 1..4)
            .prop_flat_map(|rules| (0..=rules.len() + 1, Just(rules)))
            .prop_map(|(needed, rules)| Gate { needed, rules })
    };
    let rule = leaf.prop_recursive(3, 10, 3, move |inner| gates(inner.boxed()).prop_map(Rule::Gate));
    gates(rule.boxed()).prop_map(Policy)
}

fn signers() -> impl Strategy<Value = Vec<Principal>> {
    let principal = ("[A-D]", 0..4usize, 0..6u8).prop_map(|(msp_id, role, identity)| Principal {
        msp_id,
        role: Role::ALL[role],
        identity: [identity; 32],
    });
    proptest::collection::vec(principal, 0..7)
}

/// `cauthdsl` word by word: copies of `used` instead of giving back.
fn model(rule: &Rule, signers: &[Principal], used: &mut Vec<bool>) -> bool {
    match rule {
        Rule::Gate(gate) => {
            let mut verified = 0;
            for rule in &gate.rules {
                let mut copy = used.clone();
                if model(rule, signers, &mut copy) {
                    verified += 1;
                    *used = copy;
                }
            }
            verified >= gate.needed
        }
        Rule::Leaf(leaf) => {
            for (i, signer) in signers.iter().enumerate() {
                if !used[i] && signer.msp_id == leaf.msp_id && signer.role.is(leaf.role) {
                    used[i] = true;
                    return true;
                }
            }
            false
        }
    }
}

fn needs_nothing(gate: &Gate) -> bool {
    let inner = gate
        .rules
        .iter()
        .any(|rule| matches!(rule, Rule::Gate(gate) if needs_nothing(gate)));
    gate.needed == 0 || inner
}

proptest! {
    #[test]
    fn canonical_text_leads_back(policy in policies()) {
        let text = policy.to_string();
        prop_assert_eq!(Policy::parse(&text), Ok(policy));
    }

    #[test]
    fn any_text_is_parsed_or_refused(text in "[ANDORandorutf()', \"A-D.0-9ä]{0,60}|.{0,40}") {
        if let Ok(policy) = Policy::parse(&text) {
            prop_assert_eq!(Policy::parse(&policy.to_string()), Ok(policy));
        }
    }

    #[test]
    fn evaluates_as_the_model(policy in policies(), signers in signers()) {
        let mut distinct: Vec<Principal> = Vec::new();
        for signer in &signers {
            if !distinct.iter().any(|other| other.identity == signer.identity) {
                distinct.push(signer.clone());
            }
        }
        let expected = model(&Rule::Gate(policy.0.clone()), &distinct, &mut vec![false; distinct.len()]);
        prop_assert_eq!(policy.evaluate(&signers), expected);
    }

    #[test]
    fn minimal_sets_satisfy(policy in policies(), dead in "[A-D]") {
        for alive in [&(|_: &str| true) as &dyn Fn(&str) -> bool, &|msp_id: &str| msp_id != dead] {
            let sets = policy.minimal_sets_of(alive);
            prop_assert_eq!(!sets.is_empty(), policy.is_met_by(alive));
            for set in &sets {
                let signers: Vec<Principal> = set.iter().enumerate().map(|(i, leaf)| signer(i, leaf)).collect();
                prop_assert!(policy.evaluate(&signers), "{} by {:?}", policy, set);
                prop_assert!(set.iter().all(|leaf| alive(&leaf.msp_id)));
            }
            prop_assert!(sets.windows(2).all(|pair| pair[0].len() <= pair[1].len()));
            if !sets.is_empty() {
                prop_assert!(policy.missing(alive).is_empty());
            } else {
                prop_assert!(policy.missing(alive).iter().all(|msp_id| *msp_id == dead));
            }
        }
    }

    /// No smaller set of peers does, where the search looked at all of them. Not so for gates that need nothing: they
    /// use up signers all the same, and a smaller set may do by what they happen to take.
    #[test]
    fn the_first_set_is_the_smallest(policy in policies()) {
        prop_assume!(!needs_nothing(&policy.0));
        let sets = policy.minimal_sets();
        let leaves = policy.leaves();
        if let Some(first) = sets.first().filter(|_| leaves.len() <= 8) {
            for subset in 0u32..1 << leaves.len() {
                if (subset.count_ones() as usize) < first.len() {
                    let chosen = leaves.iter().enumerate().filter(|(i, _)| subset & 1 << i != 0);
                    let signers: Vec<Principal> = chosen.map(|(i, leaf)| signer(i, leaf)).collect();
                    prop_assert!(!policy.evaluate(&signers), "{} by {:?}", policy, signers);
                }
            }
        }
    }
}
