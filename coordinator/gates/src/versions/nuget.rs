//! NuGet's order: semantic versions with up to four numbers. Source: NuGet's documentation, "Package versioning".

use std::cmp::Ordering;

use semver::Prerelease;

use super::parts::numbers;

pub(super) fn compare(a: &str, b: &str) -> Option<Ordering> {
    let ((numbers_a, before_a), (numbers_b, before_b)) = (read(a)?, read(b)?);
    let pairs = numbers_a.iter().zip(numbers_b.iter()).map(|(a, b)| numbers(a, b));
    let order = pairs.into_iter().find(|order| *order != Ordering::Equal).unwrap_or(Ordering::Equal);
    Some(order.then_with(|| before_a.cmp(&before_b)))
}

fn read(text: &str) -> Option<([String; 4], Prerelease)> {
    let text = text.split('+').next().unwrap_or_default().to_ascii_lowercase();
    let (numbers, before) = text.split_once('-').unwrap_or((&text, ""));
    let mut found = ["0", "0", "0", "0"].map(str::to_owned);
    let mut places = found.iter_mut();
    for number in numbers.split('.') {
        let is_number = !number.is_empty() && number.bytes().all(|c| c.is_ascii_digit());
        *places.next().filter(|_| is_number)? = number.to_owned();
    }
    Some((found, Prerelease::new(before).ok()?))
}
