// SPDX-License-Identifier: GPL-2.0
/*
 * Adds, removes, onlines and offlines at random and checks after every step
 * that the kernel is where a model says.  The same SEED gives the same steps,
 * as long as the kernel refuses the same blocks of kernel memory.
 */
#include "memhp.h"
#include "kselftest_harness.h"

#define NODE		0
#define DIMMS		4
#define DIMM_BYTES	(4 * block_bytes())
#define SEED		"20240229"
#define STEPS		"300"

enum { ADD, REMOVE, ONLINE_KERNEL, ONLINE_MOVABLE, TAKE_OFFLINE, HOLE, ACTIONS };

static const char * const action_name[] = {
	"add", "remove", "online_kernel", "online_movable", "offline", "hole"
};

static struct {
	unsigned char as[MAX_BLOCKS];
	struct dimm dimm[DIMMS];
	bool plugged[DIMMS];
	struct counters base;
	int blocks, kmsg;
	int done[ACTIONS], refused;
} model;

static unsigned long rnd(unsigned long below)
{
	static unsigned long long x;

	if (!x)
		x = strtoull(getenv("SEED") ?: SEED, NULL, 0) | 1ULL << 63;
	/* xorshift64 */
	x ^= x << 13;
	x ^= x >> 7;
	x ^= x << 17;
	return (x >> 11) % below;
}

static int dimm_of(int b)
{
	int i;

	for (i = 0; i < DIMMS; i++)
		if (model.plugged[i] && b >= model.dimm[i].first &&
		    b < model.dimm[i].first + model.dimm[i].count)
			return i;
	return -1;
}

/* A DIMM that is plugged, or that is not; -1 when there is none. */
static int pick_dimm(bool plugged)
{
	int i, n = rnd(DIMMS);

	for (i = 0; i < DIMMS; i++, n = (n + 1) % DIMMS)
		if (model.plugged[n] == plugged)
			return n;
	return -1;
}

/* A block that is online, or is not; with @hole one amid its zone. */
static int pick_block(bool online, bool hole)
{
	int b, n = 0;
	static int list[MAX_BLOCKS];

	for (b = 1; b < MAX_BLOCKS - 1; b++) {
		bool is_online = model.as[b] != OFFLINE;

		if (dimm_of(b) < 0 || is_online != online)
			continue;
		if (hole && (model.as[b - 1] != model.as[b] ||
			     model.as[b + 1] != model.as[b]))
			continue;
		list[n++] = b;
	}
	return n ? list[rnd(n)] : -1;
}

static void check(struct __test_metadata *_metadata)
{
	int b, total = model.blocks, i;
	struct counters expected, seen;

	for (i = 0; i < DIMMS; i++)
		total += model.plugged[i] ? model.dimm[i].count : 0;
	ASSERT_EQ(total, blocks_present(NULL));
	for (b = 0; b < MAX_BLOCKS; b++) {
		if (dimm_of(b) < 0)
			continue;
		ASSERT_EQ(model.as[b] != OFFLINE, block_online(b))
			TH_LOG("memory%d", b);
	}
	counters_expect(&expected, &model.base, model.as);
	ASSERT_EQ(0, counters_read(NODE, &seen));
	ASSERT_EQ(0, counters_differ(&expected, &seen));
	ASSERT_FALSE(kmsg_trouble(model.kmsg));
}

/* False when there is kernel memory in the block: that is how it is, then. */
static bool take_offline(struct __test_metadata *_metadata, int b, int seconds)
{
	int err;

	/* Without this, kernel blocks stay and soon nothing is left to do. */
	if (model.as[b] == NORMAL)
		shrink_kernel_memory();
	err = model.as[b] == NORMAL ? block_offline_retry(b, seconds) :
				      block_set(b, "offline");
	if ((err == -EBUSY || err == -EINTR) && model.as[b] == NORMAL) {
		model.refused++;
		return false;
	}
	ASSERT_EQ(0, err)
		TH_LOG("memory%d, %s: offline: %s", b, zone_name[model.as[b]],
		       strerror(-err));
	model.as[b] = OFFLINE;
	return true;
}

static bool remove_dimm(struct __test_metadata *_metadata, int i, int seconds)
{
	struct dimm *d = &model.dimm[i];
	int b;

	for (b = d->first + d->count - 1; b >= d->first; b--)
		if (model.as[b] != OFFLINE &&
		    !take_offline(_metadata, b, seconds))
			return false;
	ASSERT_EQ(0, dimm_unplug(d));
	model.plugged[i] = false;
	return true;
}

/* Returns whether there was something to do. */
static bool step(struct __test_metadata *_metadata, int action)
{
	int i, b, was;

	switch (action) {
	case ADD:
		i = pick_dimm(false);
		if (i < 0)
			return false;
		ASSERT_EQ(0, dimm_plug(&model.dimm[i], DIMM_BYTES));
		model.plugged[i] = true;
		return true;
	case REMOVE:
		i = pick_dimm(true);
		return i >= 0 && remove_dimm(_metadata, i, 0);
	case ONLINE_KERNEL:
	case ONLINE_MOVABLE:
		was = action == ONLINE_KERNEL ? NORMAL : MOVABLE;
		b = pick_block(false, false);
		break;
	case TAKE_OFFLINE:
		b = pick_block(true, false);
		return b >= 0 && take_offline(_metadata, b, 0);
	default:
		b = pick_block(true, true);
		was = b < 0 ? OFFLINE : model.as[b];
		if (b < 0 || !take_offline(_metadata, b, 0))
			return false;
		check(_metadata);
	}
	if (b < 0)
		return false;
	ASSERT_EQ(0, block_set(b, online_as[was]));
	model.as[b] = was;
	return true;
}

/*
 * A movable zone of boot memory ends where that does. Once it grew and shrank
 * again it may end in the hole behind, in the same section: let it do so before
 * anything is compared.
 */
static int settle(void)
{
	struct dimm *d = &model.dimm[0];

	return dimm_plug(d, DIMM_BYTES) ?: block_set(d->first, "online_movable") ?:
	       dimm_unplug(d);
}

FIXTURE(churn)
{
	char policy[32];
};

FIXTURE_SETUP(churn)
{
	int i;

	if (!have_host())
		SKIP(return, "no host port: run under scripts/vm");
	for (i = 0; i < DIMMS; i++)
		snprintf(model.dimm[i].id, sizeof(model.dimm[i].id), "c%d.%d",
			 getpid(), i);
	model.kmsg = kmsg_open();
	ASSERT_LE(0, model.kmsg);
	model.blocks = blocks_present(NULL);
	ASSERT_EQ(0, auto_online_set("offline", self->policy,
				     sizeof(self->policy)));
	ASSERT_EQ(0, settle());
	ASSERT_EQ(0, counters_read(NODE, &model.base));
}

FIXTURE_TEARDOWN(churn)
{
	int i;

	for (i = 0; i < DIMMS; i++)
		if (model.plugged[i] && dimm_unplug(&model.dimm[i]))
			TH_LOG("%s stays plugged", model.dimm[i].id);
	EXPECT_EQ(0, auto_online_set(self->policy, NULL, 0));
}

static bool all_done(void)
{
	int i;

	for (i = 0; i < ACTIONS && model.done[i]; i++)
		;
	return i == ACTIONS;
}

TEST_F_TIMEOUT(churn, random, 3600)
{
	/* Movable blocks are never stuck: they are most of what happens. */
	static const unsigned char weight[ACTIONS] = { 3, 2, 2, 10, 5, 5 };
	int i, n, action, tries, steps = atoi(getenv("STEPS") ?: STEPS);

	TH_LOG("SEED=%s STEPS=%d", getenv("SEED") ?: SEED, steps);
	/* A few more if one of the actions did not have its turn. */
	for (n = 0; n < steps || (n < steps + 300 && !all_done()); n++) {
		for (tries = 0; tries < 100; tries++) {
			i = rnd(3 + 2 + 2 + 10 + 5 + 5);
			for (action = 0; i >= weight[action]; action++)
				i -= weight[action];
			if (step(_metadata, action))
				break;
		}
		ASSERT_LT(tries, 100)
			TH_LOG("nothing is left to do");
		model.done[action]++;
		check(_metadata);
	}
	for (i = 0; i < ACTIONS; i++) {
		TH_LOG("%s: %d", action_name[i], model.done[i]);
		EXPECT_LT(0, model.done[i]);
	}
	TH_LOG("offline refused: %d", model.refused);

	for (i = 0, n = 0; i < DIMMS; i++)
		n += model.plugged[i] && !remove_dimm(_metadata, i, 20);
	check(_metadata);
	if (n)
		TH_LOG("%d DIMMs have kernel memory and stay", n);
}

TEST_HARNESS_MAIN
