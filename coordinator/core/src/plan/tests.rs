//! Behaviour of the planner as its callers see it.
