//! The 135,233 populated places of GeoNames, as rows.

use std::io::Read;
use std::path::Path;

use anyhow::Context;

/// One line of the file.
#[derive(Clone, Debug, PartialEq)]
pub struct City {
    /// Unique.
    pub geoname_id: i64,
    /// In its own spelling.
    pub name: String,
    /// Two letters.
    pub country: String,
    /// Of the first administrative division; a code, not a number.
    pub admin_code: Option<String>,
    /// Kind of place.
    pub feature_code: Option<String>,
    /// People.
    pub population: i64,
    /// Degrees.
    pub lon: f64,
    /// Degrees.
    pub lat: f64,
}

/// Reads the file, gzipped or not.
///
/// # Errors
/// If it cannot be read or a line is not as expected.
pub fn read(path: &Path) -> anyhow::Result<Vec<City>> {
    let file = std::fs::File::open(path)
        .with_context(|| format!("cannot read the cities from {}", path.display()))?;
    let text: Box<dyn Read> = match path.extension() {
        Some(extension) if extension == "gz" => Box::new(flate2::read::GzDecoder::new(file)),
        _ => Box::new(file),
    };
    let some = |cell: &str| (!cell.is_empty()).then(|| cell.to_owned());
    csv::Reader::from_reader(text)
        .records()
        .map(|record| {
            let record = record?;
            Ok(City {
                geoname_id: record[0].parse()?,
                name: record[1].to_owned(),
                country: record[2].to_owned(),
                admin_code: some(&record[3]),
                feature_code: some(&record[4]),
                population: record[5].parse()?,
                lon: record[6].parse()?,
                lat: record[7].parse()?,
            })
        })
        .collect()
}
