//! What each customer of a race did and when, and the first two who show how it went wrong.

use std::time::Duration;

use super::Step;

/// What one customer did.
pub(super) struct Try {
    pub(super) began: Duration,
    /// How many there were when they looked, and when that was.
    saw: Option<(Duration, i64)>,
    /// How many they left, and when that was written.
    left: Option<(Duration, i64)>,
    pub(super) ended: Duration,
    /// Whether they were told yes.
    pub(super) sold: bool,
    /// Whether their process died between the yes and the order.
    pub(super) died: bool,
}

/// What shows that a way went wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rule {
    /// Two read the same number, and both wrote one less.
    SameValueTwice,
    /// Somebody took what another had taken since it was checked.
    BelowZero,
    /// Somebody was let through and died, another was refused because of that.
    NobodyHasIt,
}

impl Try {
    pub(super) fn begin(now: Duration) -> Self {
        Self { began: now, saw: None, left: None, ended: now, sold: false, died: false }
    }

    pub(super) fn saw(&mut self, now: Duration, available: i64) {
        self.saw = Some((now, available));
    }

    pub(super) fn left(&mut self, now: Duration, available: i64) {
        self.left = Some((now, available));
    }

    pub(super) fn end(&mut self, now: Duration) {
        self.ended = now;
    }
}

/// Two customers who show how it went wrong, in the steps that were recorded; `None` if nothing shows it.
pub(super) fn first_wrong(rule: Rule, tries: &[Try], start: Duration) -> Option<Vec<Step>> {
    let us = |at: Duration| u64::try_from(at.saturating_sub(start).as_micros()).unwrap_or(u64::MAX);
    let mut steps = Vec::new();
    let mut step = |at: Duration, who: char, does: String| steps.push(Step { t_us: us(at), who, does });
    if rule == Rule::NobodyHasIt {
        let dead = tries.iter().filter(|one| one.died).min_by_key(|one| one.ended)?;
        let refused = tries.iter().filter(|one| one.left.is_some_and(|(_, left)| left < 0));
        let refused = refused.min_by_key(|one| one.ended)?;
        let ((took_at, left), (asked_at, below)) = (dead.left?, refused.left?);
        step(took_at, 'A', format!("decrements the counter: {left} left, a yes"));
        step(dead.ended, 'A', "dies before its order is written; the counter stays as it is".into());
        step(asked_at, 'B', format!("decrements the counter: {below}, a no"));
        step(refused.ended, 'B', "hears \"sold out\", while A's unit is nobody's".into());
    } else {
        let (one, other) = stale(rule, tries)?;
        let word = if rule == Rule::SameValueTwice { "writes" } else { "takes one:" };
        for (who, of) in [('A', one), ('B', other)] {
            let ((saw_at, saw), (left_at, left)) = (of.saw?, of.left?);
            step(saw_at, who, format!("reads available = {saw}"));
            step(left_at, who, format!("{word} available = {left}, and sells a unit"));
        }
    }
    steps.sort_by_key(|step| step.t_us);
    Some(steps)
}

/// The first sale that was decided by what was no longer so: another one was written between its reading and its writing.
fn stale(rule: Rule, tries: &[Try]) -> Option<(&Try, &Try)> {
    type Reading = (Duration, i64);
    let mut sold: Vec<(&Try, Reading, Reading)> =
        tries.iter().filter(|one| one.sold).filter_map(|one| Some((one, one.saw?, one.left?))).collect();
    sold.sort_unstable_by_key(|(.., (left_at, _))| *left_at);
    let wrong = |(_, _, (_, left)): &&(&Try, Reading, Reading)| rule != Rule::BelowZero || *left < 0;
    let seen = sold.iter().enumerate().filter(|(_, one)| wrong(one)).find_map(|(place, (other, (saw_at, saw), _))| {
        let mut between = sold[..place].iter().rev().take_while(|(.., (at, _))| at > saw_at);
        let before = between.find(|(_, (_, same), _)| rule == Rule::BelowZero || same == saw)?;
        Some((before.0, *other))
    });
    // On a busy machine a customer may be put off between an act and its noting; then those are shown who were there at the
    // same time.
    seen.or_else(|| {
        sold.iter().enumerate().filter(|(_, one)| wrong(one)).find_map(|(place, (other, (_, saw), (left_at, left)))| {
            let others = sold.iter().enumerate().filter(|(at, _)| *at != place).map(|(_, one)| one);
            let mut there = others.filter(|(one, _, (at, _))| *at > other.began && one.began < *left_at);
            let before = there.find(|(_, (_, same), (_, kept))| match rule {
                Rule::BelowZero => kept > left,
                _ => same == saw,
            })?;
            Some((before.0, *other))
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sale(saw: (u64, i64), left: (u64, i64)) -> Try {
        let mut one = Try::begin(Duration::from_micros(saw.0));
        one.saw(Duration::from_micros(saw.0), saw.1);
        one.left(Duration::from_micros(left.0), left.1);
        one.end(Duration::from_micros(left.0 + 1));
        one.sold = true;
        one
    }

    fn told(rule: Rule, tries: &[Try]) -> Vec<String> {
        let steps = first_wrong(rule, tries, Duration::ZERO).unwrap_or_default();
        steps.iter().map(|step| format!("{} {} {}", step.t_us, step.who, step.does)).collect()
    }

    #[test]
    fn the_first_lost_write_is_shown_as_it_happened() {
        let tries = [sale((1, 9), (2, 8)), sale((5, 8), (9, 7)), sale((4, 8), (7, 7)), sale((11, 7), (12, 6))];
        assert_eq!(
            told(Rule::SameValueTwice, &tries),
            [
                "4 A reads available = 8",
                "5 B reads available = 8",
                "7 A writes available = 7, and sells a unit",
                "9 B writes available = 7, and sells a unit",
            ]
        );
        assert!(told(Rule::SameValueTwice, &tries[..1]).is_empty());
    }

    #[test]
    fn who_was_put_off_before_noting_is_found_too() {
        let mut late = sale((6, 8), (9, 7));
        late.began = Duration::from_micros(2);
        assert_eq!(told(Rule::SameValueTwice, &[sale((3, 8), (5, 7)), late]).len(), 4);
    }

    #[test]
    fn one_after_the_other_nothing_is_wrong() {
        let tries = [sale((1, 2), (2, 1)), sale((3, 1), (4, 0))];
        assert!(told(Rule::SameValueTwice, &tries).is_empty());
        assert!(told(Rule::BelowZero, &tries).is_empty());
    }

    #[test]
    fn below_zero_is_shown_with_who_took_the_last_one() {
        let tries = [sale((1, 1), (3, 0)), sale((2, 1), (5, -1))];
        assert_eq!(told(Rule::BelowZero, &tries)[3], "5 B takes one: available = -1, and sells a unit");
    }
}
