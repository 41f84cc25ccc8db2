//! Where an action's command runs, as given by its platform.

use std::sync::Arc;

use kiln_images::name::ImageName;
use kiln_proto::{property, reapi};

use crate::Rooted;

/// Where a command runs.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Place {
    /// On the worker's own system.
    Machine,
    /// In a container of this image, for a machine of this architecture (such as `amd64`).
    Image(ImageName, Option<&'static str>),
    /// In a root file system of its own.
    Root(Arc<Rooted>),
    /// Nowhere: it resolves an image name to a digest.
    ImageResolver,
}

impl Place {
    /// Reads an action's platform: the action's own, or else its command's. An action in a root of its own has more than a platform to
    /// say where it runs, and is not read here.
    ///
    /// # Errors
    /// If the platform names an invalid image, or an executor that does not fit it.
    pub fn of(action: &reapi::Action, command: &reapi::Command) -> Result<Self, String> {
        #[allow(deprecated)]
        let platform = action.platform.as_ref().or(command.platform.as_ref());
        let value = |wanted: &str| {
            let mut properties = platform.iter().flat_map(|platform| &platform.properties);
            properties.find(|property| property.name == wanted).map(|property| property.value.as_str())
        };
        match (value(property::EXECUTOR), value(property::CONTAINER_IMAGE)) {
            (None | Some(property::DOCKER), Some(image)) => {
                let image = image.parse().map_err(|error: kiln_images::reference::Invalid| error.to_string())?;
                Ok(Self::Image(image, value(property::ISA).and_then(property::architecture)))
            }
            (None | Some(property::SANDBOX), None) => Ok(Self::Machine),
            (Some(property::IMAGE_RESOLVER), None) => Ok(Self::ImageResolver),
            (Some(property::DOCKER), None) => {
                Err("the action requests `docker` without an image; add the property `container-image`".to_owned())
            }
            (Some(executor), image) => {
                let image = image.map_or(String::new(), |image| format!(" for image `{image}`"));
                Err(format!("executor `{executor}` cannot run this action{image}"))
            }
        }
    }
}
