document.title = "Two hours";
