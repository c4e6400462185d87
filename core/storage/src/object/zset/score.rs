//! Scores, and the bounds of ranges by score and by member.

use core::cmp::Ordering;

/// The score of a member: any `f64` but NaN and `-0`, which becomes `0`.
///
/// Redis treats the two zeros as equal, and its small sets forget the sign too.
#[derive(Clone, Copy, Debug, Default)]
pub struct Score(f64);

impl Score {
    /// Below every other score.
    pub const MIN: Score = Score(f64::NEG_INFINITY);
    /// Above every other score.
    pub const MAX: Score = Score(f64::INFINITY);

    /// `value` as a score; `None` if it is not a number.
    #[inline]
    #[must_use]
    pub const fn new(value: f64) -> Option<Score> {
        if value.is_nan() { None } else { Some(Score(value + 0.0)) }
    }

    /// The number.
    #[inline]
    #[must_use]
    pub const fn get(self) -> f64 {
        self.0
    }
}

impl PartialEq for Score {
    #[inline]
    fn eq(&self, other: &Score) -> bool {
        self.0 == other.0
    }
}

impl Eq for Score {}

impl Ord for Score {
    #[inline]
    fn cmp(&self, other: &Score) -> Ordering {
        if self.0 < other.0 {
            Ordering::Less
        } else if self.0 > other.0 {
            Ordering::Greater
        } else {
            Ordering::Equal
        }
    }
}

impl PartialOrd for Score {
    #[inline]
    fn partial_cmp(&self, other: &Score) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// One end of a range by score. The infinities are scores: `-inf` is `Included(Score::MIN)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScoreBound {
    /// `5`
    Included(Score),
    /// `(5`
    Excluded(Score),
}

impl ScoreBound {
    /// With this bound as the minimum, is `score` below the range?
    #[inline]
    pub(crate) fn is_above(self, score: Score) -> bool {
        match self {
            ScoreBound::Included(min) => score < min,
            ScoreBound::Excluded(min) => score <= min,
        }
    }

    /// With this bound as the maximum, is `score` not yet past the range?
    #[inline]
    pub(crate) fn reaches(self, score: Score) -> bool {
        match self {
            ScoreBound::Included(max) => score <= max,
            ScoreBound::Excluded(max) => score < max,
        }
    }
}

/// One end of a range by member, for sets whose scores are all the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LexBound<'a> {
    /// `-`
    Min,
    /// `+`
    Max,
    /// `[a`
    Included(&'a [u8]),
    /// `(a`
    Excluded(&'a [u8]),
}

impl LexBound<'_> {
    /// With this bound as the minimum, is `member` below the range?
    #[inline]
    pub(crate) fn is_above(self, member: &[u8]) -> bool {
        match self {
            LexBound::Min => false,
            LexBound::Max => true,
            LexBound::Included(min) => member < min,
            LexBound::Excluded(min) => member <= min,
        }
    }

    /// With this bound as the maximum, is `member` not yet past the range?
    #[inline]
    pub(crate) fn reaches(self, member: &[u8]) -> bool {
        match self {
            LexBound::Min => false,
            LexBound::Max => true,
            LexBound::Included(max) => member <= max,
            LexBound::Excluded(max) => member < max,
        }
    }
}
