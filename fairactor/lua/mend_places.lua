-- Repairs where the tasks of a shard stand, and what is known of its runtimes, after mend.lua.
--
-- KEYS  1 META of the shard
-- ARGV  1 a name of the client
-- Reply the script of the repair to call next, as mend.lua
--
-- Safe to repeat: it goes on from what is stored (see lib/mend_steps.lua). If a task stands in two places, the mailbox counts
-- before the suspects and the delayed tasks, these before the held ones, and these before the claims: no runtime was told of
-- such a claim.

-- @include lib/mend_steps.lua

local reply = stops('mend_places', ARGV[1])
if reply then return reply end

-- @include lib/base.lua
-- @include lib/mend_kinds.lua
-- @include lib/counts.lua
-- @include lib/ring.lua
-- @include lib/queues.lua
-- @include lib/ending.lua
-- @include lib/mend_tasks.lua
-- @include lib/mend_followers.lua
-- @include lib/mend_runtimes.lua
-- @include lib/mend_homes.lua
-- @include lib/mend_lanes.lua
-- @include lib/mend_ended.lua

return run_phases({
  { once = function() end }, -- lib/mend_kinds.lua
  { keys = { HELD }, scan = 'HSCAN', run = repair_followers },
  { keys = { AGAIN }, scan = 'HSCAN', run = repair_again },
  { over = LANE_QUEUE, scan = 'ZSCAN', run = repair_lane },
  { over = QUEUE, scan = 'ZSCAN', run = repair_queue },
  { over = SUSPECTS, scan = 'ZSCAN', run = repair_suspects },
  { over = DELAYED, scan = 'ZSCAN', run = repair_delayed },
  { keys = { HELD }, scan = 'HSCAN', run = repair_held },
  { over = CLAIMS, scan = 'HSCAN', run = repair_claims },
  { over = TASK, many = repair_records },
  { over = LANE_QUEUE, run = note_lane },
  { over = LANES_OF, scan = 'ZSCAN', run = keep_lanes_of },
  { over = IN_LANE, scan = 'ZSCAN', run = keep_in_lane },
  { keys = { LANES }, scan = 'HSCAN', run = keep_lanes },
  { over = SUSPECTS, run = note_suspects },
  { keys = { SUSPECTED }, scan = 'ZSCAN', run = keep_suspected },
  { over = DELAYED, run = repair_due_time },
  { keys = { SCHEDULED }, scan = 'ZSCAN', run = keep_scheduled },
  { keys = { SESSIONS, FLEET, HOMES, IDLE_SLOTS, KIND_OF }, scan = 'HSCAN', run = forget_runtimes },
  { keys = { IDLE, IDLE_HOMES }, run = forget_idle },
  { over = KIND_IDLE, run = forget_idle },
  { over = ASSIGNED, run = forget_assignment },
  { over = STEAL, run = forget_assignment },
  { over = ASSIGNED_TO, run = forget_index },
  { over = STOLEN_BY, run = forget_index },
  { keys = { INDEXED }, run = forget_indexed },
  { over = ASSIGNED, scan = 'SSCAN', run = index_assigned },
  { over = STEAL, scan = 'SSCAN', run = index_steal },
  { keys = { LEASES }, scan = 'ZSCAN', run = describe_runtimes },
  { over = CANCELS, scan = 'HSCAN', run = repair_cancels },
  { keys = { PROGRESS }, scan = 'HSCAN', run = repair_progress },
  { keys = { KEYED }, scan = 'HSCAN', run = repair_keyed },
  { over = KEY, run = repair_key },
  { keys = { WATCHERS }, scan = 'HSCAN', run = notify },
  { keys = { DEAD }, scan = 'ZSCAN', run = repair_dead_letters },
  { over = DEAD_OF, run = delete_index },
  { over = DEAD_BY, run = delete_index },
  { once = delete_index_of_unknown },
  { keys = { DEAD }, scan = 'ZSCAN', run = index_letters },
  { once = note_letters },
}, 'mend_rings')
