//! `Capabilities`: what this farm supports.

use kiln_proto::chunking;
use kiln_proto::digest::DigestFunction;
use kiln_proto::reapi::{self, compressor, priority_capabilities::PriorityRange, symlink_absolute_path_strategy};
use kiln_proto::semver::SemVer;
use tonic::{Request, Response, Status};

use super::MAX_BATCH_BYTES;

/// The capabilities, which are the same for every instance.
#[derive(Debug, Clone, Copy, Default)]
pub struct Capabilities;

fn version(minor: i32) -> Option<SemVer> {
    Some(SemVer { major: 2, minor, ..SemVer::default() })
}

/// Every priority is accepted: they only determine the order of actions.
fn any_priority() -> Option<reapi::PriorityCapabilities> {
    let range = PriorityRange { min_priority: i32::MIN, max_priority: i32::MAX };
    Some(reapi::PriorityCapabilities { priorities: vec![range] })
}

#[tonic::async_trait]
impl reapi::capabilities_server::Capabilities for Capabilities {
    async fn get_capabilities(
        &self,
        _request: Request<reapi::GetCapabilitiesRequest>,
    ) -> Result<Response<reapi::ServerCapabilities>, Status> {
        let digest_functions = vec![DigestFunction::Sha256.to_wire(), DigestFunction::Blake3.to_wire()];
        let compressors = vec![compressor::Value::Zstd as i32];
        let cache = reapi::CacheCapabilities {
            digest_functions: digest_functions.clone(),
            action_cache_update_capabilities: Some(reapi::ActionCacheUpdateCapabilities { update_enabled: true }),
            max_batch_total_size_bytes: MAX_BATCH_BYTES as i64,
            symlink_absolute_path_strategy: symlink_absolute_path_strategy::Value::Allowed as i32,
            supported_compressors: compressors.clone(),
            supported_batch_update_compressors: compressors,
            split_blob_support: true,
            splice_blob_support: true,
            fast_cdc_2020_params: Some(reapi::FastCdc2020Params {
                avg_chunk_size_bytes: chunking::AVERAGE_BYTES,
                seed: chunking::SEED,
            }),
            ..Default::default()
        };
        let execution = reapi::ExecutionCapabilities {
            digest_function: DigestFunction::Sha256.to_wire(),
            exec_enabled: true,
            execution_priority_capabilities: any_priority(),
            digest_functions,
            ..Default::default()
        };
        Ok(Response::new(reapi::ServerCapabilities {
            cache_capabilities: Some(cache),
            execution_capabilities: Some(execution),
            low_api_version: version(0),
            high_api_version: version(13),
            ..Default::default()
        }))
    }
}
