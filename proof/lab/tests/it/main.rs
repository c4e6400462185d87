//! Every claim, in the size of a test: it holds, and its control is caught.

use lab::{ALL, Run, Verdict, judge};

#[test]
fn every_claim_holds_and_its_control_is_caught() {
    for claim in ALL {
        let judgement = judge(claim, &Run::small(claim, 7));
        let told = serde_json::to_string_pretty(&judgement.json()["figures"]).unwrap();
        assert!(!judgement.control.hold(), "{}: the control passed", claim.name);
        assert_eq!(judgement.verdict(), Verdict::Holds, "{}: {told}", claim.name);
    }
}

#[test]
fn the_same_seed_finds_the_same_and_another_seed_something_else() {
    for claim in ALL {
        let told = |seed| judge(claim, &Run::small(claim, seed)).json();
        assert_eq!(told(1), told(1), "{}", claim.name);
        assert_ne!(told(1)["trace_hash"], told(2)["trace_hash"], "{}", claim.name);
    }
}

#[test]
fn names_are_words_and_no_two_claims_share_one() {
    for (n, claim) in ALL.iter().enumerate() {
        assert!(claim.name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-'), "{}", claim.name);
        assert!(ALL[..n].iter().all(|other| other.name != claim.name), "{}", claim.name);
        for parameter in claim.parameters {
            assert!(parameter.parse(&parameter.default().to_string()).is_ok(), "{}", parameter.name);
            assert!(!["seed", "json", "svg", "help", "out"].contains(&parameter.name), "{}", parameter.name);
        }
    }
}

#[test]
fn the_report_needs_nothing_else() {
    let judgements: Vec<_> = ALL.iter().map(|claim| judge(claim, &Run::small(claim, 3))).collect();
    let page = lab::report::html(&judgements, "0");
    assert!(!page.contains("src=") && !page.contains("<link") && !page.contains("@import"), "{page}");
    for claim in ALL {
        assert!(page.contains(&format!("id=\"{}\"", claim.name)));
    }
    assert_eq!(page.matches("<svg").count(), page.matches("</svg>").count());
}
