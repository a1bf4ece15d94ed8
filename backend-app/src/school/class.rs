//! Grades and their sections.

use serde::Serialize;

/// A grade, such as Grade 10.
#[derive(Debug, Serialize)]
pub(crate) struct Class {
    pub(crate) id: String,
    pub(crate) name: String,
    /// Orders the grades.
    pub(crate) level: i64,
    pub(crate) sections: Vec<Section>,
}

/// Students who are taught together.
#[derive(Debug, Serialize)]
pub(crate) struct Section {
    pub(crate) id: String,
    pub(crate) name: String,
    /// How many students are in it.
    pub(crate) students: i64,
}

impl Class {
    /// Students of all sections.
    pub(crate) fn students(&self) -> i64 {
        self.sections.iter().map(|section| section.students).sum()
    }
}
