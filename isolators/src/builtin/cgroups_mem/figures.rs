//! What the kernel says of a container's memory, as Mesos' fields have it.
//!
//! | field | v1 | v2 |
//! | --- | --- | --- |
//! | `mem_total_bytes` | `memory.usage_in_bytes` | `memory.current` |
//! | `mem_total_memsw_bytes` | `memory.memsw.usage_in_bytes` | `memory.current` + `memory.swap.current` |
//! | `mem_kmem_usage_bytes` | `memory.kmem.usage_in_bytes` | stat `kernel` |
//! | `mem_kmem_tcp_usage_bytes` | `memory.kmem.tcp.usage_in_bytes` | stat `sock` |
//! | `mem_file_bytes`, `mem_cache_bytes` | stat `total_cache` | stat `file` |
//! | `mem_anon_bytes`, `mem_rss_bytes` | stat `total_rss` | stat `anon` |
//! | `mem_mapped_file_bytes` | stat `total_mapped_file` | stat `file_mapped` |
//! | `mem_swap_bytes` | stat `total_swap` | `memory.swap.current` |
//! | `mem_unevictable_bytes` | stat `total_unevictable` | stat `unevictable` |
//!
//! A figure that the kernel does not give is left out.

use tepui_api::v1::ResourceStatistics;

use super::Place;
use crate::cgroups::files::{read_keyed, read_number, read_number_if_there};
use crate::cgroups::{CgroupError, Version};

/// Adds the figures; `with_swap` that of memory and swap together.
pub fn fill(place: &Place, with_swap: bool, statistics: &mut ResourceStatistics) -> Result<(), CgroupError> {
    let file = |name: &str| place.dir.join(name);
    let stat = read_keyed(&file("memory.stat"))?;
    let (cache, rss, mapped, unevictable);
    match place.version {
        Version::V1 => {
            statistics.mem_total_bytes = Some(read_number(&file("memory.usage_in_bytes"))?);
            statistics.mem_kmem_usage_bytes = read_number_if_there(&file("memory.kmem.usage_in_bytes"))?;
            statistics.mem_kmem_tcp_usage_bytes =
                read_number_if_there(&file("memory.kmem.tcp.usage_in_bytes"))?;
            if with_swap {
                statistics.mem_total_memsw_bytes =
                    read_number_if_there(&file("memory.memsw.usage_in_bytes"))?;
            }
            statistics.mem_swap_bytes = stat.get("total_swap");
            (cache, rss) = (stat.get("total_cache"), stat.get("total_rss"));
            (mapped, unevictable) = (stat.get("total_mapped_file"), stat.get("total_unevictable"));
        }
        Version::V2 => {
            let total: u64 = read_number(&file("memory.current"))?;
            let swap: Option<u64> = read_number_if_there(&file("memory.swap.current"))?;
            statistics.mem_total_bytes = Some(total);
            statistics.mem_kmem_usage_bytes = stat.get("kernel");
            statistics.mem_kmem_tcp_usage_bytes = stat.get("sock");
            if with_swap {
                statistics.mem_total_memsw_bytes = swap.map(|swap| total.saturating_add(swap));
            }
            statistics.mem_swap_bytes = swap;
            (cache, rss) = (stat.get("file"), stat.get("anon"));
            (mapped, unevictable) = (stat.get("file_mapped"), stat.get("unevictable"));
        }
    }
    (statistics.mem_file_bytes, statistics.mem_cache_bytes) = (cache, cache);
    (statistics.mem_anon_bytes, statistics.mem_rss_bytes) = (rss, rss);
    statistics.mem_mapped_file_bytes = mapped;
    statistics.mem_unevictable_bytes = unevictable;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn v2_figures_are_where_the_table_says() {
        let dir = tempfile::tempdir().unwrap();
        let files = [
            ("memory.stat", "anon 1\nfile 2\nkernel 3\nsock 4\nfile_mapped 5\nunevictable 6\n"),
            ("memory.current", "100\n"),
            ("memory.swap.current", "11\n"),
        ];
        for (file, text) in files {
            fs::write(dir.path().join(file), text).unwrap();
        }
        let mut statistics = ResourceStatistics::default();
        fill(&Place { dir: dir.path().to_owned(), version: Version::V2 }, true, &mut statistics).unwrap();
        let expected = ResourceStatistics {
            mem_total_bytes: Some(100),
            mem_total_memsw_bytes: Some(111),
            mem_kmem_usage_bytes: Some(3),
            mem_kmem_tcp_usage_bytes: Some(4),
            mem_file_bytes: Some(2),
            mem_cache_bytes: Some(2),
            mem_anon_bytes: Some(1),
            mem_rss_bytes: Some(1),
            mem_mapped_file_bytes: Some(5),
            mem_swap_bytes: Some(11),
            mem_unevictable_bytes: Some(6),
            ..ResourceStatistics::default()
        };
        assert_eq!(statistics, expected);
    }
}
