//! The table: every role times every action. Whoever is not named in a line may not.
//! Trusts: nothing.
//! Touches: nothing.
//! Next: [`super::permit`] reads it and makes the permit.

use super::action::Action;
use crate::identity::peer::Role;

/// What the table says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grant {
    /// Never.
    Deny,
    /// For calls that the peer itself uploaded.
    Own,
    /// For all calls; or the action concerns no call.
    All,
}

use Grant::{All, Deny, Own};

/// May `role` do `action`?
pub const fn grant(role: Role, action: Action) -> Grant {
    let [recorder, counsellor, case_worker, supervisor, admin, model_steward, auditor, monitor] = row(action);
    match role {
        Role::Recorder => recorder,
        Role::Counsellor => counsellor,
        Role::CaseWorker => case_worker,
        Role::Supervisor => supervisor,
        Role::Admin => admin,
        Role::ModelSteward => model_steward,
        Role::Auditor => auditor,
        Role::Monitor => monitor,
    }
}

#[rustfmt::skip]
const fn row(action: Action) -> [Grant; 8] {
    match action {
        //                         recorder counsellor case_worker supervisor admin model_steward auditor monitor
        Action::CreateCall      => [Own,    Own,       Deny,       Deny,      Deny, Deny,         Deny,   Deny],
        Action::ListCalls       => [Own,    Own,       Deny,       All,       Deny, Deny,         Deny,   Deny],
        Action::ViewCall        => [Own,    Own,       Deny,       All,       Deny, Deny,         Deny,   Deny],
        Action::WatchCall       => [Own,    Own,       Deny,       All,       Deny, Deny,         Deny,   Deny],
        Action::ReadTranscript  => [Deny,   Own,       Deny,       All,       Deny, Deny,         Deny,   Deny],
        Action::ExportCall      => [Deny,   Own,       Deny,       All,       Deny, Deny,         Deny,   Deny],
        Action::CancelCall      => [Deny,   Own,       Deny,       All,       Deny, Deny,         Deny,   Deny],
        // Erasure destroys what a duty of care may need: one role, not the uploader's own.
        Action::DeleteCall      => [Deny,   Deny,      Deny,       All,       Deny, Deny,         Deny,   Deny],
        // Who answers for it and who audits that it was done.
        Action::ReadErasure     => [Deny,   Deny,      Deny,       All,       Deny, Deny,         All,    Deny],
        // Who may read every call and erase them. Not the auditor, who reads none, nor the administrator.
        Action::BurstKeys       => [Deny,   Deny,      Deny,       All,       Deny, Deny,         Deny,   Deny],
        Action::RedactText      => [Deny,   All,       Deny,       All,       Deny, Deny,         Deny,   Deny],
        Action::WhoAmI          => [All,    All,       All,        All,       All,  All,          All,    Deny],
        Action::ReadApiDocument => [All,    All,       All,        All,       All,  All,          All,    Deny],
        Action::ReadHealth      => [All,    All,       All,        All,       All,  All,          All,    All],
        Action::ReadMetrics     => [Deny,   Deny,      Deny,       Deny,      All,  Deny,         Deny,   All],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The same rules once more, written as sentences of DESIGN.md rather than as a table.
    fn by_the_design(role: Role, action: &str) -> Grant {
        match (role.word(), action) {
            (_, "health") => All,
            ("monitor" | "admin", "metrics") => All,
            (_, "metrics") | ("monitor", _) => Deny,
            (_, "whoami" | "openapi") => All,
            ("recorder", "call.create" | "call.list" | "call.view" | "call.watch") => Own,
            ("counsellor", "text.redact") => All,
            ("counsellor", "call.delete" | "call.erasure" | "keys.burst") => Deny,
            ("auditor", "call.erasure") => All,
            ("counsellor", _) => Own,
            ("supervisor", "call.create") => Deny,
            ("supervisor", _) => All,
            _ => Deny,
        }
    }

    #[test]
    fn every_pair_of_role_and_action_is_as_the_design_says() {
        for role in Role::ALL {
            for action in Action::ALL {
                assert_eq!(grant(role, *action), by_the_design(role, action.word()), "{role} {action:?}");
            }
        }
    }

    #[test]
    fn the_role_that_may_grant_is_the_one_that_the_keeper_asks_for() {
        for role in Role::ALL {
            assert_eq!(grant(role, Action::BurstKeys) == All, role.word() == "supervisor", "{role}");
        }
    }

    #[test]
    fn the_administrator_reads_no_call() {
        for action in Action::ALL.iter().filter(|action| action.word().starts_with("call.")) {
            assert_eq!(grant(Role::Admin, *action), Deny, "{action:?}");
        }
    }
}
