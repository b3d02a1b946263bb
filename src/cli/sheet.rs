//! A secret on its way to paper: as groups with numbers, and as a QR code where a terminal is.
//! Trusts: the person at the terminal to write it down and to clear the screen.
//! Touches: standard output.
//! Next: the keeper asks for it again.

use std::io::{self, IsTerminal as _};

use qrcode::QrCode;
use qrcode::render::unicode::Dense1x2;
use serde::Serialize;
use zeroize::Zeroizing;

use super::failure::Failure;
use super::output::Output;
use crate::base::secret::SecretText;
use crate::ipc::keyslots::{Sheet, SheetSort};

#[derive(Serialize)]
struct Line<'a> {
    sheet: SheetSort,
    slot: u32,
    text: &'a SecretText,
}

/// Shows it, once.
pub fn show(output: Output, sheet: &Sheet) -> Result<(), Failure> {
    if output.json {
        return output.json_line(&Line { sheet: sheet.sort, slot: sheet.slot, text: &sheet.text });
    }
    output.text(&page(sheet, io::stdout().is_terminal()))
}

fn page(sheet: &Sheet, with_picture: bool) -> Zeroizing<String> {
    // Room for all of it: a string that grows leaves its old place unwiped.
    let mut page = Zeroizing::new(String::with_capacity(16 << 10));
    page.push_str(&match sheet.sort {
        SheetSort::Code => format!("recovery code of slot {}. Whoever has it and the disk has every call: lock it away.\n\n", sheet.slot),
        SheetSort::Share { number, threshold, count } => {
            format!("share {number} of {count} of slot {}; {threshold} of them open it. Give it to one trustee.\n\n", sheet.slot)
        }
    });
    for (number, group) in (1..).zip(sheet.text.expose().split(' ')) {
        let (left, right) = group.split_at_checked(4).unwrap_or((group, ""));
        page.push_str(&format!("  {number}  "));
        page.push_str(left);
        page.push('-');
        page.push_str(right);
        page.push('\n');
    }
    if with_picture && let Ok(picture) = QrCode::new(sheet.text.expose()) {
        page.push('\n');
        // Light on dark, as most terminals are; readers take both.
        let drawn = Zeroizing::new(picture.render::<Dense1x2>().dark_color(Dense1x2::Light).light_color(Dense1x2::Dark).build());
        page.push_str(&drawn);
        page.push('\n');
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sheet(sort: SheetSort) -> Sheet {
        Sheet { sort, slot: 2, text: SecretText::new("0123ABCD 4567EFGH".to_owned()) }
    }

    #[test]
    fn a_sheet_has_numbered_groups() {
        let page = page(&sheet(SheetSort::Code), false);
        assert!(page.contains("  1  0123-ABCD\n  2  4567-EFGH\n"), "{}", *page);
    }

    #[test]
    fn the_picture_is_there_and_fits_a_terminal() {
        let page = page(&sheet(SheetSort::Share { number: 1, threshold: 2, count: 3 }), true);
        let drawn: Vec<&str> = page.lines().filter(|line| line.contains('\u{2588}')).collect();
        assert!(drawn.len() > 10 && drawn.iter().all(|line| line.chars().count() <= 80));
    }
}
