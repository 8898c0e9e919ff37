//! Pictures of rollouts: data in, bytes of an SVG or PNG out. Pure.
//!
//! A picture is drawn as SVG; a PNG is that SVG rendered with a font from this binary. So both
//! look the same on a machine without fonts, and the same data give the same bytes.

mod arms;
mod canvas;
mod data;
mod decisions;
mod distribution;
pub mod journal;
mod rollout;
mod suspicion;

use std::path::Path;
use std::sync::Arc;

use plotters::drawing::DrawingAreaErrorKind;
use resvg::tiny_skia::{Pixmap, Transform};
use resvg::usvg::{self, fontdb};

pub use data::{ArmPoint, Decision, Look, Mark, Rollout, Step};
pub use distribution::{Replicates, distributions};
pub use rollout::rollout;

/// Pixels of a PNG per pixel of its SVG.
const PNG_SCALE: u32 = 1;
/// Most pixels of a PNG. Each takes four bytes of memory while it is drawn.
const PIXELS_MAX: u64 = 40_000_000;

/// What kind of file a picture is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// SVG: it scales, for print and for browsers.
    Svg,
    /// PNG: pixels.
    Png,
}

impl Format {
    /// The format that a file's extension names.
    ///
    /// # Errors
    /// If it is neither `.svg` nor `.png`.
    pub fn of(path: &Path) -> Result<Self, String> {
        let extension = path.extension().and_then(|e| e.to_str()).unwrap_or("");
        match extension.to_ascii_lowercase().as_str() {
            "svg" => Ok(Self::Svg),
            "png" => Ok(Self::Png),
            _ => Err(format!(
                "{} cannot be the name of a picture: it must end in .svg or .png",
                path.display()
            )),
        }
    }
}

/// Why a picture could not be drawn.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The drawing library refused something.
    #[error("failed to draw the picture")]
    Draw(#[from] DrawingAreaErrorKind<std::io::Error>),
    /// The picture's SVG could not be read back for rendering.
    #[error("failed to read the drawn picture")]
    Read(#[from] usvg::Error),
    /// The picture would have too many pixels.
    #[error(
        "failed to render a picture of {width} x {height} pixels: at most {PIXELS_MAX} are allowed\n\nhint: write it as .svg, or show fewer scenarios"
    )]
    TooLarge {
        /// The width that it would have, pixels.
        width: u32,
        /// The height that it would have, pixels.
        height: u32,
    },
    /// The pixels could not be written as a PNG.
    #[error("failed to encode the picture as PNG")]
    Encode(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// The drawn SVG as the bytes of a file in the wanted format.
fn encode(svg: String, (width, height): (u32, u32), format: Format) -> Result<Vec<u8>, Error> {
    if format == Format::Svg {
        return Ok(svg.into_bytes());
    }
    let (width, height) = (width * PNG_SCALE, height * PNG_SCALE);
    let too_large = Error::TooLarge { width, height };
    if u64::from(width) * u64::from(height) > PIXELS_MAX {
        return Err(too_large);
    }
    let mut fonts = fontdb::Database::new();
    fonts.load_font_data(notosans::REGULAR_TTF.to_vec());
    fonts.set_sans_serif_family("Noto Sans");
    let options = usvg::Options {
        fontdb: Arc::new(fonts),
        ..usvg::Options::default()
    };
    let tree = usvg::Tree::from_str(&svg, &options)?;
    let mut pixels = Pixmap::new(width, height).ok_or(too_large)?;
    let scale = Transform::from_scale(PNG_SCALE as f32, PNG_SCALE as f32);
    resvg::render(&tree, scale, &mut pixels.as_mut());
    pixels.encode_png().map_err(|e| Error::Encode(e.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_extension_chooses_the_format() {
        assert_eq!(Format::of(Path::new("a/b.svg")), Ok(Format::Svg));
        assert_eq!(Format::of(Path::new("b.PNG")), Ok(Format::Png));
        let error = Format::of(Path::new("b.pdf")).expect_err("no such format");
        assert!(error.contains(".svg or .png"), "{error}");
        assert!(Format::of(Path::new("svg")).is_err());
    }
}
