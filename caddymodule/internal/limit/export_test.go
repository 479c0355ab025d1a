package limit

// MaxBuckets is the size of one generation.
const MaxBuckets = maxBuckets

// Buckets returns how many addresses are in memory.
func (l *Limiter) Buckets() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.young) + len(l.old)
}
