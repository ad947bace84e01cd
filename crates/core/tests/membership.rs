//! The membership list: a set of signed statements, the same members everywhere.
#![allow(clippy::unwrap_used)] // A failed unwrap is a failed test.

use left_core::membership::{
    Act, Founding, MAX_BODY, MAX_STATEMENTS, Roll, Signature, Signed, Standing, Statement,
    StatementError, StatementId,
};
use left_core::message::{Role, ShareId};
use left_core::version::DeviceId;
use proptest::collection::vec;
use proptest::prelude::*;

const RW: Act = Act::Admit(Role::ReadWrite);
const RO: Act = Act::Admit(Role::ReadOnly);

fn device(n: u8) -> DeviceId {
    DeviceId([n; 32])
}

/// Stands for Ed25519: whoever has the key can make it, and nobody else is simulated to.
fn signature(issuer: &DeviceId, bytes: &[u8]) -> Signature {
    let mut out = [0; 64];
    out[..32].copy_from_slice(blake3::keyed_hash(&issuer.0, bytes).as_bytes());
    out
}

fn is_signed(issuer: &DeviceId, bytes: &[u8], given: &Signature) -> bool {
    signature(issuer, bytes) == *given
}

fn sign(statement: Statement) -> Signed {
    Signed {
        signature: signature(&statement.issuer, &statement.signed_bytes()),
        statement,
    }
}

fn founded() -> Roll {
    Roll::new(Founding {
        founder: device(0),
        nonce: [7; 32],
    })
}

/// `issuer` says it on its own list and adds it there.
#[track_caller]
fn say(roll: &mut Roll, issuer: u8, act: Act, subject: u8) -> Signed {
    let draft = roll.draft(device(issuer), device(subject), act, 1);
    let signed = sign(draft.unwrap());
    assert_eq!(roll.add(signed.clone(), is_signed), Ok(true));
    signed
}

/// Takes in all that another list has.
fn hear(roll: &mut Roll, from: &Roll) {
    for signed in from.statements() {
        roll.add(signed.clone(), is_signed).unwrap();
    }
}

fn merged(a: &Roll, b: &Roll) -> Roll {
    let mut both = a.clone();
    hear(&mut both, b);
    both
}

fn role(roll: &Roll, n: u8) -> Option<Role> {
    roll.role_of(device(n))
}

#[test]
fn the_founder_is_in_and_admits() {
    let mut roll = founded();
    assert_eq!(role(&roll, 0), Some(Role::ReadWrite));
    assert_eq!(role(&roll, 1), None);
    say(&mut roll, 0, RW, 1);
    say(&mut roll, 1, RO, 2);
    assert_eq!(role(&roll, 1), Some(Role::ReadWrite));
    assert_eq!(role(&roll, 2), Some(Role::ReadOnly));
    let by: Vec<_> = roll.members().iter().map(|m| m.by).collect();
    assert_eq!(by, [None, Some(device(0)), Some(device(1))]);
    // A second admission may only add to what a device may do.
    say(&mut roll, 0, RW, 2);
    assert_eq!(role(&roll, 2), Some(Role::ReadWrite));
    say(&mut roll, 0, RO, 2);
    assert_eq!(role(&roll, 2), Some(Role::ReadWrite));
    // Less by removing first.
    say(&mut roll, 0, Act::Remove, 2);
    say(&mut roll, 0, RO, 2);
    assert_eq!(role(&roll, 2), Some(Role::ReadOnly));
}

#[test]
fn the_share_names_its_founder() {
    let founding = founded().founding();
    let other = Founding {
        founder: device(1),
        ..founding
    };
    assert_ne!(founding.share(), other.share());
    let nonce = Founding {
        nonce: [8; 32],
        ..founding
    };
    assert_ne!(founding.share(), nonce.share());
}

#[test]
fn golden_vectors() {
    let founding = Founding {
        founder: device(1),
        nonce: [2; 32],
    };
    assert_eq!(
        founding.share().to_string(),
        "VFBFF7SBWB3RYC7OHO3UTEXNLLSL4IOVLNVSHDQ7OTEOKIW3I4FA"
    );
    let statement = Statement {
        share: ShareId([3; 32]),
        issuer: device(1),
        subject: device(2),
        act: RO,
        under: Some(StatementId([4; 32])),
        after: vec![StatementId([4; 32]), StatementId([5; 32])],
        time: 1_900_000_000,
    };
    let id = data_encoding::HEXLOWER.encode(&statement.id().0);
    assert_eq!(
        id,
        "818f8c5b545b82248cd74ab2ed5a483b668296919610cf4c05e8083a661bc6ad"
    );
    let signed = statement.signed_bytes();
    assert!(signed.starts_with(b"LEFT 2026 membership statement v1\0\x01\x02"));
}

#[test]
fn who_may_not_write_admits_and_removes_nobody() {
    let mut roll = founded();
    let admission = say(&mut roll, 0, RO, 1).statement.id();
    for issuer in [1, 2] {
        for act in [RW, RO, Act::Remove] {
            let draft = roll.draft(device(issuer), device(3), act, 1);
            assert_eq!(draft, Err(StatementError::Unlawful));
        }
    }
    // Nor by claiming what is not so.
    let founders = say(&mut roll, 0, RW, 4).statement;
    for (issuer, under) in [
        (1, None),
        (1, Some(admission)),
        (2, Some(admission)),
        (1, Some(founders.id())),
    ] {
        for act in [RW, RO, Act::Remove] {
            let forged = sign(Statement {
                issuer: device(issuer),
                subject: device(3),
                act,
                under,
                after: roll.heads(),
                ..founders.clone()
            });
            let before = roll.members();
            assert_eq!(roll.add(forged, is_signed), Err(StatementError::Unlawful));
            assert_eq!(roll.members(), before);
        }
    }
}

#[test]
fn what_is_unsigned_foreign_or_out_of_nowhere_is_not_taken_in() {
    let mut roll = founded();
    let draft = roll.draft(device(0), device(1), RW, 1).unwrap();
    let check = |roll: &mut Roll, signed: Signed, why| {
        assert_eq!(roll.add(signed, is_signed), Err(why));
        assert_eq!(roll.members().len(), 1);
        assert_eq!(roll.statements().len(), 0);
    };
    let mut unsigned = sign(draft.clone());
    unsigned.signature[31] ^= 1;
    check(&mut roll, unsigned, StatementError::Signature);
    // Every part of it is signed.
    let signature = sign(draft.clone()).signature;
    for changed in [
        Statement {
            subject: device(2),
            ..draft.clone()
        },
        Statement {
            act: RO,
            ..draft.clone()
        },
        Statement {
            time: 2,
            ..draft.clone()
        },
    ] {
        let statement = changed;
        let signed = Signed {
            statement,
            signature,
        };
        check(&mut roll, signed, StatementError::Signature);
    }
    let foreign = Statement {
        share: ShareId([9; 32]),
        ..draft.clone()
    };
    check(&mut roll, sign(foreign), StatementError::Foreign);
    let nowhere = Statement {
        after: vec![StatementId([5; 32])],
        ..draft.clone()
    };
    check(&mut roll, sign(nowhere), StatementError::Unknown);
    let nowhere = Statement {
        under: Some(StatementId([5; 32])),
        ..draft
    };
    check(&mut roll, sign(nowhere), StatementError::Unknown);
}

#[test]
fn a_removal_wins_over_admissions_that_did_not_know_of_it() {
    let mut roll = founded();
    say(&mut roll, 0, RW, 1);
    say(&mut roll, 0, RW, 2);
    let stale = roll.clone();
    say(&mut roll, 0, Act::Remove, 2);
    assert_eq!(role(&roll, 2), None);
    assert!(roll.is_removed(device(2)));
    assert_eq!(roll.remover_of(device(2)), Some(device(0)));

    // A member who has not heard admits it again: by a ticket, say.
    let mut unaware = stale.clone();
    say(&mut unaware, 1, RW, 2);
    assert_eq!(role(&unaware, 2), Some(Role::ReadWrite));
    let both = merged(&roll, &unaware);
    assert_eq!(role(&both, 2), None);
    assert!(!roll.knew_removals(&stale.heads(), device(2)));
    assert!(roll.knew_removals(&roll.heads(), device(2)));
    assert!(roll.knew_removals(&[], device(1)));

    // One who has heard may.
    let mut aware = both;
    say(&mut aware, 1, RO, 2);
    assert_eq!(role(&aware, 2), Some(Role::ReadOnly));
    assert!(!aware.is_removed(device(2)));
}

#[test]
fn a_removed_device_lets_nobody_in_by_an_old_date() {
    let mut roll = founded();
    say(&mut roll, 0, RW, 1);
    say(&mut roll, 1, RW, 2);
    let old = roll.clone();
    say(&mut roll, 0, Act::Remove, 1);
    // What the removal knew stays: 2 is still in, and may admit.
    assert_eq!(role(&roll, 2), Some(Role::ReadWrite));
    say(&mut roll, 2, RO, 3);

    // The removed device goes on where it was, also through one that it lets in.
    let mut forged = old;
    say(&mut forged, 1, RW, 4);
    say(&mut forged, 4, RW, 5);
    let mut both = merged(&roll, &forged);
    assert_eq!([role(&both, 4), role(&both, 5)], [None, None]);
    assert_eq!(role(&both, 3), Some(Role::ReadOnly));
    assert_eq!(
        both.draft(device(4), device(5), RW, 1),
        Err(StatementError::Unlawful)
    );
    // Nor does letting it in again bring back what it said meanwhile.
    say(&mut both, 0, RW, 1);
    assert_eq!(role(&both, 1), Some(Role::ReadWrite));
    assert_eq!(role(&both, 4), None);
    say(&mut both, 1, RW, 6);
    assert_eq!(role(&both, 6), Some(Role::ReadWrite));
}

#[test]
fn a_removed_founder_has_no_more_rights_than_others() {
    let mut roll = founded();
    say(&mut roll, 0, RW, 1);
    let old = roll.clone();
    say(&mut roll, 1, Act::Remove, 0);
    assert_eq!(role(&roll, 0), None);
    assert_eq!(role(&roll, 1), Some(Role::ReadWrite));
    let mut forged = old;
    say(&mut forged, 0, RW, 2);
    let mut both = merged(&roll, &forged);
    assert_eq!(role(&both, 2), None);
    assert_eq!(
        both.draft(device(0), device(2), RW, 1),
        Err(StatementError::Unlawful)
    );
    say(&mut both, 1, RW, 0);
    say(&mut both, 0, RW, 2);
    assert_eq!(role(&both, 2), Some(Role::ReadWrite));
}

#[test]
fn two_who_remove_each_other_are_both_out() {
    let mut roll = founded();
    say(&mut roll, 0, RW, 1);
    say(&mut roll, 0, RW, 2);
    let mut other = roll.clone();
    say(&mut roll, 1, Act::Remove, 2);
    say(&mut other, 2, Act::Remove, 1);
    let both = merged(&roll, &other);
    assert_eq!([role(&both, 1), role(&both, 2)], [None, None]);
    assert_eq!(role(&both, 0), Some(Role::ReadWrite));
}

#[test]
fn the_list_is_bounded_and_keeps_room_to_remove() {
    let mut roll = founded();
    say(&mut roll, 0, RW, 1);
    let base = roll.clone();
    // All at once, each knowing only the first: as many heads as there are statements.
    for time in 0.. {
        let mut draft = base.draft(device(1), device(2), RO, 1).unwrap();
        draft.time = time;
        match roll.add(sign(draft), is_signed) {
            Ok(true) => {}
            other => {
                assert_eq!(other, Err(StatementError::Full));
                break;
            }
        }
        if roll.draft(device(0), device(9), RW, 1) == Err(StatementError::Full) {
            break;
        }
    }
    assert!(roll.statements().len() < MAX_STATEMENTS);
    let draft = roll.draft(device(0), device(1), Act::Remove, 1).unwrap();
    assert!(draft.encode().len() <= MAX_BODY);
    roll.add(sign(draft), is_signed).unwrap();
    assert_eq!(role(&roll, 1), None);
    assert_eq!(roll.heads().len() + 64, roll.statements().len() - 1);
    while roll.statements().len() < MAX_STATEMENTS {
        say(&mut roll, 0, Act::Remove, 1);
    }
    let draft = roll.draft(device(0), device(1), Act::Remove, 1);
    assert_eq!(draft, Err(StatementError::Full));
}

/// One step of a made-up history.
#[derive(Debug, Clone)]
enum Step {
    /// A device says something on its own list, if it may.
    Say(usize, Act, u8),
    /// A device hears all that another one knows.
    Hear(usize, usize),
    /// A device goes back to what it knew at an earlier step: one that cheats, or a restored backup.
    Forget(usize, usize),
}

const DEVICES: u8 = 6;

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let n = usize::from(DEVICES);
    let act = prop_oneof![3 => Just(RW), 1 => Just(RO), 2 => Just(Act::Remove)];
    let step = prop_oneof![
        4 => (0..n, act, 0..DEVICES).prop_map(|(d, a, s)| Step::Say(d, a, s)),
        4 => (0..n, 0..n).prop_map(|(a, b)| Step::Hear(a, b)),
        1 => (0..n, any::<usize>()).prop_map(|(d, at)| Step::Forget(d, at)),
    ];
    vec(step, 1..60)
}

/// What each device knows in the end.
fn play(steps: &[Step]) -> Vec<Roll> {
    let mut rolls = vec![founded(); usize::from(DEVICES)];
    let mut past = Vec::new();
    for (time, step) in steps.iter().enumerate() {
        past.push(rolls.clone());
        match *step {
            Step::Say(who, act, subject) => {
                let issuer = device(who as u8);
                let draft = rolls[who].draft(issuer, device(subject), act, time as u64);
                if let Ok(draft) = draft {
                    rolls[who].add(sign(draft), is_signed).unwrap();
                }
            }
            Step::Hear(who, from) => {
                let from = rolls[from].clone();
                hear(&mut rolls[who], &from);
            }
            Step::Forget(who, at) => rolls[who] = past[at % past.len()][who].clone(),
        }
    }
    rolls
}

/// All statements in another order in which each comes after what it refers to.
fn reordered(roll: &Roll, seed: u64) -> Roll {
    let mut all: Vec<Signed> = roll.statements().cloned().collect();
    all.sort_by_key(|s| {
        let id = s.statement.id();
        *blake3::keyed_hash(&id.0, &seed.to_le_bytes()).as_bytes()
    });
    let mut new = founded();
    while !all.is_empty() {
        let before = all.len();
        all.retain(|s| new.add(s.clone(), is_signed) == Err(StatementError::Unknown));
        assert!(all.len() < before, "some refer to nothing");
    }
    new
}

proptest! {
    #[test]
    fn the_same_statements_make_the_same_members(steps in steps(), seed: u64) {
        let rolls = play(&steps);
        let (mut up, mut down) = (founded(), founded());
        for roll in &rolls {
            hear(&mut up, roll);
        }
        for roll in rolls.iter().rev() {
            hear(&mut down, roll);
        }
        prop_assert_eq!(up.members(), down.members());
        let other = reordered(&up, seed);
        prop_assert_eq!(up.members(), other.members());
        let (mut a, mut b) = (up.heads(), other.heads());
        a.sort();
        b.sort();
        prop_assert_eq!(a, b);
        // Hearing it again changes nothing.
        let again = merged(&up, &other);
        prop_assert_eq!(again.statements().len(), up.statements().len());
    }

    #[test]
    fn what_was_lawful_for_one_is_lawful_for_all(steps in steps()) {
        // `hear` unwraps: no list may hold what another one refuses.
        let rolls = play(&steps);
        for a in &rolls {
            for b in &rolls {
                merged(a, b);
            }
        }
    }

    #[test]
    fn removed_stays_removed(before in steps(), after in steps(), subject in 0..DEVICES) {
        let rolls = play(&before);
        let mut all = founded();
        for roll in &rolls {
            hear(&mut all, roll);
        }
        let remover = all.members().into_iter().find(|m| m.role == Role::ReadWrite);
        prop_assume!(remover.is_some());
        let remover = remover.unwrap().device;
        let draft = all.draft(remover, device(subject), Act::Remove, 1).unwrap();
        all.add(sign(draft), is_signed).unwrap();
        prop_assert_eq!(role(&all, subject), None);
        // Nobody else heard of it, and all go on as they like.
        let ahead: Vec<Step> = before.iter().chain(&after).cloned().collect();
        for roll in play(&ahead) {
            hear(&mut all, &roll);
            prop_assert_eq!(role(&all, subject), None);
        }
    }

    #[test]
    fn every_member_was_let_in_by_one_who_might(steps in steps()) {
        for roll in play(&steps) {
            for Standing { device: member, by, .. } in roll.members() {
                match by {
                    None => prop_assert_eq!(member, device(0)),
                    Some(by) => {
                        // Not a member any more, perhaps, but once read-write.
                        let mut ever = roll.statements().map(|s| &s.statement);
                        prop_assert!(
                            by == device(0) || ever.any(|s| s.subject == by && s.act == RW)
                        );
                    }
                }
            }
        }
    }
}
