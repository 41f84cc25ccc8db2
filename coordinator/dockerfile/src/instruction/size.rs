//! Sizes as Docker reads them: `64m`, `1.5GiB`, `100`.

/// The number of bytes.
pub(super) fn read(text: &str) -> Option<u64> {
    let unit = text.trim_start_matches(|c: char| c.is_ascii_digit() || matches!(c, '.' | ' '));
    let number = text.strip_suffix(unit)?;
    let number: f64 = number.strip_suffix(' ').unwrap_or(number).parse().ok().filter(|number: &f64| *number >= 0.0)?;
    let factor = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 1,
        "m" | "mb" | "mib" => 2,
        "g" | "gb" | "gib" => 3,
        "t" | "tb" | "tib" => 4,
        "p" | "pb" | "pib" => 5,
        _ => return None,
    };
    let bytes = number * 1024_f64.powi(factor);
    (bytes <= u64::MAX as f64 && bytes.is_finite()).then_some(bytes as u64)
}

#[cfg(test)]
mod tests {
    #[test]
    fn units_are_binary_and_any_case() {
        for (text, bytes) in [("100", 100), ("64m", 64 << 20), ("1.5GiB", 3 << 29), ("2 KB", 2048), ("1b", 1)] {
            assert_eq!(super::read(text), Some(bytes), "{text}");
        }
        for text in ["", "m", "-1", "1x", "1mm", "1kbb", "1e999", "nan"] {
            assert_eq!(super::read(text), None, "{text}");
        }
    }
}
