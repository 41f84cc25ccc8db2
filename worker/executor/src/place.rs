//! In what an action's command runs, as its platform says.

use kiln_images::name::ImageName;
use kiln_proto::{property, reapi};

/// In what a command runs.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Place {
    /// On the worker's own system.
    Machine,
    /// In a container of this image, for a machine of this architecture (`amd64`).
    Image(ImageName, Option<&'static str>),
    /// Nowhere: it asks which digest an image's name has.
    ImageResolver,
}

impl Place {
    /// Reads the platform of an action: the action's own, else its command's.
    ///
    /// # Errors
    /// In words, where it names an image that is none.
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
