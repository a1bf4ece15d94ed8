//! What happened at the CA.

use std::collections::HashMap;

/// A certificate that was issued.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issued {
    /// For which name.
    pub name: String,
    /// When, milliseconds since 1970.
    pub at_ms: i64,
    /// Its end, milliseconds since 1970.
    pub not_after_ms: i64,
    /// Whether the order said which certificate it replaces.
    pub replaced: bool,
    /// The profile it was ordered with.
    pub profile: Option<String>,
}

/// Everything that happened.
#[derive(Debug, Clone, Default)]
pub struct Record {
    /// Orders that were made, by name; one that was given again is not counted.
    pub orders: HashMap<String, usize>,
    /// When validations failed, by name, milliseconds since 1970.
    pub failures: HashMap<String, Vec<i64>>,
    /// Certificates, in order.
    pub issued: Vec<Issued>,
    /// Requests refused for a limit, and its words.
    pub limited: Vec<String>,
    /// Accounts that were made.
    pub accounts: usize,
    /// Requests in all.
    pub requests: usize,
    /// Serial numbers that were revoked.
    pub revoked: Vec<String>,
}

impl Record {
    /// The most validations of one name that failed within an hour, and whose.
    pub fn most_failures_within_an_hour(&self) -> (usize, String) {
        let most = |times: &Vec<i64>| {
            let within = |from: &i64| times.iter().filter(|at| (*from..*from + 3_600_000).contains(*at)).count();
            times.iter().map(within).max().unwrap_or(0)
        };
        let all = self.failures.iter().map(|(name, times)| (most(times), name.clone()));
        all.max().unwrap_or_default()
    }
}
