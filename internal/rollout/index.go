package rollout

import (
	"fmt"
	"slices"
	"strings"

	"nixfleet/internal/fleet"
)

// index is what follows from the manifests of the newest rollouts alone. It is
// made when a rollout opens or is pruned, because a Plan that walked every
// channel's copy of every budget would grow with the square of the fleet.
type index struct {
	rollouts []*Rollout       // all of them, by opening
	plans    map[string]*plan // of the newest ones, by rollout
	hosts    map[string]int32 // a number for each host that a newest rollout or its budgets name
	budgets  []budget         // each different one once
	naming   [][]int32        // by host: the budgets that name it
}

// plan is one manifest, made ready.
type plan struct {
	ids   []int32             // of the rollout's rows
	edges map[string][]string // by host: those that go first
	own   []bool              // by budget: this manifest declares it
}

// budget is a limit on some hosts.
type budget struct {
	name  string
	limit int
}

func (w *World) indexed() *index {
	if w.index == nil {
		w.index = w.newIndex()
	}
	return w.index
}

func (w *World) newIndex() *index {
	x := &index{plans: map[string]*plan{}, hosts: map[string]int32{}}
	for _, r := range w.Rollouts {
		x.rollouts = append(x.rollouts, r)
	}
	slices.SortFunc(x.rollouts, byOpening)
	same := map[string]int32{} // budgets by what they say
	declared := map[*plan][]int32{}
	for _, r := range x.rollouts {
		if !w.isNewest(r) {
			continue
		}
		p := &plan{edges: map[string][]string{}}
		for i := range r.Hosts {
			p.ids = append(p.ids, x.host(r.Hosts[i].Hostname))
		}
		for _, e := range r.Manifest.Edges {
			p.edges[e.Gated] = append(p.edges[e.Gated], e.Gates)
		}
		for _, b := range r.Manifest.DisruptionBudgets {
			declared[p] = append(declared[p], x.budget(b, same))
		}
		x.plans[r.ID] = p
	}
	for p, budgets := range declared {
		p.own = make([]bool, len(x.budgets))
		for _, b := range budgets {
			p.own[b] = true
		}
	}
	return x
}

// host is the number of the host.
func (x *index) host(name string) int32 {
	id, ok := x.hosts[name]
	if !ok {
		id = int32(len(x.hosts))
		x.hosts[name] = id
		x.naming = append(x.naming, nil)
	}
	return id
}

// budget is the number of the budget. Manifests that were published together
// repeat the same ones, which are counted once.
func (x *index) budget(b fleet.Budget, same map[string]int32) int32 {
	limit := b.Limit()
	says := fmt.Sprint(limit, " ", strings.Join(b.Hosts, " "))
	n, ok := same[says]
	if !ok {
		n = int32(len(x.budgets))
		same[says] = n
		x.budgets = append(x.budgets, budget{name: budgetName(b, limit), limit: limit})
		for _, name := range b.Hosts {
			id := x.host(name)
			x.naming[id] = append(x.naming[id], n)
		}
	}
	return n
}

// budgetName names a budget to people.
func budgetName(b fleet.Budget, limit int) string {
	return fmt.Sprintf("%d of %s at once", limit, selected(b))
}

func selected(b fleet.Budget) string {
	s := b.Selector
	var clauses []string
	if s.All {
		clauses = append(clauses, "all hosts")
	}
	if s.Channel != nil {
		clauses = append(clauses, "channel "+*s.Channel)
	}
	if len(s.Tags) > 0 {
		clauses = append(clauses, "tags "+strings.Join(s.Tags, "+"))
	}
	if len(s.TagsAny) > 0 {
		clauses = append(clauses, "any of tags "+strings.Join(s.TagsAny, ", "))
	}
	if len(s.Hosts) > 0 || len(clauses) == 0 {
		clauses = append(clauses, fmt.Sprintf("%d named hosts", max(len(s.Hosts), len(b.Hosts))))
	}
	return strings.Join(clauses, " or ")
}
