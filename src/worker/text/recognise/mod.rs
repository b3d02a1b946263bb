//! The rules: one file a family, each finding is validated.
//! Trusts: nothing; all patterns run in time linear in the text.
//! Touches: nothing.
//! Next: `merge` decides between findings that overlap.

pub mod age;
pub mod birth;
pub mod checks;
pub mod figures;
pub mod numbers;
pub mod patterns;
pub mod people;
pub mod places;

use age::Ages;
use birth::Births;
use figures::Figures;
use numbers::Numbers;
use patterns::Patterns;
use people::People;
use places::Places;

use super::finding::Finding;
use super::lexicon::Lexicon;
use super::view::View;

/// All rules, compiled once.
pub struct Rules {
    numbers: Numbers,
    patterns: Patterns,
    figures: Figures,
    births: Births,
    ages: Ages,
    people: People,
    places: Places,
}

impl Rules {
    /// Compiles the rules.
    ///
    /// # Errors
    /// When a pattern does not compile: a fault of ours that must stop the start-up.
    pub fn new() -> Result<Self, regex::Error> {
        let numbers = Numbers::build();
        Ok(Self {
            patterns: Patterns::new()?,
            figures: Figures::new()?,
            births: Births::new(&numbers)?,
            ages: Ages::new(&numbers)?,
            people: People::new()?,
            places: Places::new()?,
            numbers,
        })
    }

    /// Everything that a rule finds in `view`, overlapping and in no order. Ranges are of the view.
    pub fn find(&self, view: &View, lexicon: &Lexicon) -> Vec<Finding> {
        let mut found = self.patterns.find(view);
        found.extend(self.figures.find(view, &self.numbers));
        found.extend(self.births.find(view));
        found.extend(self.ages.find(view));
        found.extend(self.people.find(view, lexicon));
        found.extend(self.places.find(view, lexicon));
        found
    }

    /// The runs of digits in `view`, for `propagate`.
    pub fn runs(&self, view: &View) -> Vec<numbers::Run> {
        self.numbers.runs(view.lower())
    }
}
