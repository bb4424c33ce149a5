// Sends back what it receives, through the worker's own scope.
