//! Options for the preprocessor: `-Wp,`.

use super::line::Line;
use crate::call::OutputKind;
use crate::refusal::Refusal;

/// Takes the items of `-Wp,` into account: `-D`, `-U`, and `-MD,FILE` and `-MMD,FILE`.
pub(super) fn read(line: &mut Line, list: &[u8]) -> Result<(), Refusal> {
    let refuse = |item: &[u8]| Refusal::PreprocessorOption { option: String::from_utf8_lossy(item).into_owned() };
    let mut items = list.split(|c| *c == b',');
    while let Some(item) = items.next() {
        if matches!(item, b"-MD" | b"-MMD") {
            let file = items.next().filter(|file| !file.is_empty()).ok_or_else(|| refuse(item))?;
            line.passed_depfile = true;
            line.writes(OutputKind::Depfile, file);
        } else if let Some(macro_) = item.strip_prefix(b"-D").filter(|text| !text.is_empty()) {
            line.define(macro_);
        } else if let Some(name) = item.strip_prefix(b"-U").filter(|text| !text.is_empty()) {
            line.undefine(name);
        } else {
            return Err(refuse(item));
        }
    }
    Ok(())
}
