// The container that holds a pod's network.
module bed/pause

go 1.26.0
