//! Which end of a build is told to whom. Pure.

use kiln_plan::Ending;
use kiln_proto::v1::{Build, Status};

use crate::config::Subscription;

/// Whether somebody wants to know of builds like this one.
pub(crate) fn concerns(subscription: &Subscription<'_>, build: &Build) -> bool {
    let source = build.source.clone().unwrap_or_default();
    (subscription.uncommitted || !source.dirty)
        && subscription.projects.as_ref().is_none_or(|projects| projects.is_match(&build.project))
        && subscription.branches.as_ref().is_none_or(|branches| branches.is_match(&source.branch))
}

/// What an end is, of what is wanted: what says most of it.
pub(crate) fn of(status: Status, before: Option<Status>, wanted: &[Ending]) -> Option<Ending> {
    let failed = |status| matches!(status, Status::Failed | Status::FarmFailed);
    let is = |ending: &Ending| match ending {
        Ending::Failed => failed(status),
        Ending::Fixed => status == Status::Succeeded && before.is_some_and(failed),
        Ending::Finished => true,
    };
    [Ending::Failed, Ending::Fixed, Ending::Finished].into_iter().find(|ending| wanted.contains(ending) && is(ending))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_told_as_what_says_most_of_what_is_wanted() {
        use Ending::{Failed, Finished, Fixed};
        let (all, usual) = (&Ending::ALL[..], &Ending::DEFAULT[..]);
        for (status, before, wanted, expected) in [
            (Status::Failed, None, usual, Some(Failed)),
            (Status::FarmFailed, Some(Status::Failed), usual, Some(Failed)),
            (Status::Failed, None, &[Finished][..], Some(Finished)),
            (Status::Succeeded, None, usual, None),
            (Status::Succeeded, Some(Status::Succeeded), usual, None),
            (Status::Succeeded, Some(Status::Succeeded), all, Some(Finished)),
            (Status::Succeeded, Some(Status::Failed), usual, Some(Fixed)),
            (Status::Succeeded, Some(Status::FarmFailed), all, Some(Fixed)),
            (Status::Succeeded, Some(Status::Failed), &[Failed][..], None),
            (Status::Cancelled, Some(Status::Failed), usual, None),
            (Status::Cancelled, None, all, Some(Finished)),
        ] {
            assert_eq!(of(status, before, wanted), expected, "{status:?} after {before:?}, wanted {wanted:?}");
        }
    }
}
