//! Values of NVIDIA cards, through the driver's own library (NVML).
//!
//! In: the library, opened at run time. Out: [`GpuReading`]s by card. Owns: the opened library. Invariants: no library,
//! no driver or no card is not a failure but nothing to read; a value that a card does not tell is left out, the others
//! stay.

use crate::event::Unit;
use nvml_wrapper::Nvml;
use nvml_wrapper::enum_wrappers::device::TemperatureSensor;
use nvml_wrapper::error::NvmlError;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

/// What drivers install, and what their development packages add.
const LIBRARIES: [&str; 2] = ["libnvidia-ml.so.1", "libnvidia-ml.so"];

/// What a value is.
#[derive(Debug, PartialEq)]
pub struct GpuValue {
    /// The word in a pipeline file.
    pub key: &'static str,
    /// The exposed name while no metric names it.
    pub name: &'static str,
    /// Its unit.
    pub unit: Unit,
    /// `# HELP`.
    pub help: &'static str,
}

/// Declares the values, so that a key and its name cannot differ.
macro_rules! gpu_values {
    ($($id:ident = $key:literal, $unit:expr, $help:literal;)*) => {
        $(static $id: GpuValue = GpuValue { key: $key, name: concat!("gpu_", $key), unit: $unit, help: $help };)*
        /// Every value there is; all are gauges with label `gpu`, the card's number.
        pub static GPU_VALUES: [&GpuValue; 5] = [$(&$id,)*];
    };
}

gpu_values! {
    UTILIZATION = "utilization_percent", Unit::Other("percent"), "Share of the time in which the card computed, 0 to 100.";
    MEMORY_PERCENT = "memory_percent", Unit::Other("percent"), "Memory of the card in use, 0 to 100.";
    MEMORY_USED = "memory_used_bytes", Unit::Bytes, "Memory of the card in use.";
    TEMPERATURE = "temperature_celsius", Unit::Other("celsius"), "Temperature of the card.";
    POWER = "power_watts", Unit::Other("watts"), "Power that the card draws.";
}

/// One value of one card.
#[derive(Clone, Debug, PartialEq)]
pub struct GpuReading {
    /// Which.
    pub what: &'static GpuValue,
    /// The card's number, from 0, as `nvidia-smi` shows it.
    pub gpu: u32,
    /// Finite, not negative.
    pub value: f64,
}

/// Why there is nothing to read.
#[derive(Debug, thiserror::Error)]
pub enum GpuError {
    /// No library, or one that does not start.
    #[error("no NVIDIA driver answers ({0})")]
    NoDriver(String),
    /// The driver runs and knows of no card, or does not say how many.
    #[error("the NVIDIA driver shows no card")]
    NoCard,
}

/// Reads the values of all cards.
pub struct GpuCollector {
    library: Option<PathBuf>,
    nvml: Option<Nvml>,
}

impl GpuCollector {
    /// Nothing is opened yet; `library` is the path of the library, `None` = the system's.
    pub fn new(library: Option<PathBuf>) -> GpuCollector {
        GpuCollector { library, nvml: None }
    }

    /// Reads everything once. The library is opened at the first reading, and again at each as long as there is none: a
    /// driver may be loaded later.
    ///
    /// # Errors
    /// [`GpuError`] when there is nothing to read.
    pub fn collect(&mut self) -> Result<Vec<GpuReading>, GpuError> {
        let nvml = match self.nvml.take() {
            Some(nvml) => nvml,
            None => open(self.library.as_deref())?,
        };
        match nvml.device_count() {
            Ok(count) if count > 0 => {
                let readings = (0..count).flat_map(|gpu| read_card(&nvml, gpu)).collect();
                self.nvml = Some(nvml);
                Ok(readings)
            }
            // Opened anew at the next reading, in case the driver was exchanged.
            Ok(_) | Err(_) => Err(GpuError::NoCard),
        }
    }
}

fn open(library: Option<&Path>) -> Result<Nvml, GpuError> {
    let open = |path: &OsStr| Nvml::builder().lib_path(path).init();
    let opened = match library {
        Some(path) => open(path.as_os_str()),
        None => open(LIBRARIES[0].as_ref()).or_else(|first| match first {
            NvmlError::LibloadingError(_) => open(LIBRARIES[1].as_ref()).map_err(|_| first),
            other => Err(other),
        }),
    };
    opened.map_err(|error| GpuError::NoDriver(error.to_string()))
}

fn read_card(nvml: &Nvml, gpu: u32) -> Vec<GpuReading> {
    let mut readings = Vec::with_capacity(GPU_VALUES.len());
    // A card that fell off the bus keeps its number.
    let Ok(card) = nvml.device_by_index(gpu) else { return readings };
    let mut push = |what, value: f64| readings.push(GpuReading { what, gpu, value });
    if let Ok(utilization) = card.utilization_rates() {
        push(&UTILIZATION, f64::from(utilization.gpu).min(100.0));
    }
    if let Ok(memory) = card.memory_info() {
        if memory.total > 0 {
            push(&MEMORY_PERCENT, memory.used.min(memory.total) as f64 / memory.total as f64 * 100.0);
        }
        push(&MEMORY_USED, memory.used as f64);
    }
    if let Ok(celsius) = card.temperature(TemperatureSensor::Gpu) {
        push(&TEMPERATURE, f64::from(celsius));
    }
    if let Ok(milliwatts) = card.power_usage() {
        push(&POWER, f64::from(milliwatts) / 1e3);
    }
    readings
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    /// Compiles the stand-in for the driver's library, with the given preprocessor definitions.
    fn fake(folder: &Path, definitions: &[&str]) -> PathBuf {
        let library = folder.join("libnvidia-ml.so");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fake_nvml.c");
        let mut compiler = Command::new("cc");
        compiler.args(["-shared", "-fPIC", "-o"]).arg(&library).args(definitions).arg(source);
        let compiled = compiler.output().expect("a C compiler, which the linker needs too");
        assert!(compiled.status.success(), "{}", String::from_utf8_lossy(&compiled.stderr));
        library
    }

    fn values(readings: &[GpuReading], gpu: u32) -> Vec<(&'static str, f64)> {
        readings.iter().filter(|r| r.gpu == gpu).map(|r| (r.what.key, r.value)).collect()
    }

    #[test]
    fn two_cards_of_which_one_tells_less() {
        let folder = tempfile::tempdir().expect("a directory");
        let mut collector = GpuCollector::new(Some(fake(folder.path(), &[])));
        let readings = collector.collect().expect("two cards");
        assert_eq!(
            values(&readings, 0),
            [
                ("utilization_percent", 37.0),
                ("memory_percent", 25.0),
                ("memory_used_bytes", 2_147_483_648.0),
                ("temperature_celsius", 61.0),
                ("power_watts", 123.456),
            ]
        );
        assert_eq!(values(&readings, 1), [("utilization_percent", 0.0), ("temperature_celsius", 30.0)]);
        assert_eq!(collector.collect().expect("again"), readings);
        for known in GPU_VALUES {
            assert_eq!(known.name, format!("gpu_{}", known.key));
        }
    }

    #[test]
    fn a_library_that_knows_nothing_else_gives_no_card() {
        let folder = tempfile::tempdir().expect("a directory");
        let none = fake(folder.path(), &["-DCARDS=0"]);
        assert!(matches!(GpuCollector::new(Some(none)).collect(), Err(GpuError::NoCard)));
    }

    #[test]
    fn no_driver_is_an_error_that_may_end() {
        let folder = tempfile::tempdir().expect("a directory");
        let mut collector = GpuCollector::new(Some(folder.path().join("libnvidia-ml.so")));
        assert!(matches!(collector.collect(), Err(GpuError::NoDriver(_))));
        fake(folder.path(), &[]);
        assert_eq!(collector.collect().expect("loaded later").len(), 7);
        let other = tempfile::tempdir().expect("a directory");
        let stopped = fake(other.path(), &["-DINIT=9"]);
        assert!(matches!(GpuCollector::new(Some(stopped)).collect(), Err(GpuError::NoDriver(_))));
    }
}
