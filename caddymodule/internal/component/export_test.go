package component

import "context"

// Work does once what Run does again and again.
func (p *Platform) Work(ctx context.Context) error { return p.work(ctx) }
