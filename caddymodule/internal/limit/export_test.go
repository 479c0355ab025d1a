package limit

// MaxBuckets is the size of one generation.
const MaxBuckets = maxBuckets

func (g *generations[K]) len() int { return len(g.young) + len(g.old) }

// Len returns how many keys are in memory.
func (b *Buckets[K]) Len() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.kept.len()
}

// Buckets returns how many addresses are in memory.
func (l *Limiter) Buckets() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.clients.len()
}
