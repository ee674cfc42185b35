"""The DispatcherActor: takes as much ready work from the store as its workers have asked for."""
