-- How tenants are served: by their own settings, or else by the defaults.
--
-- A policy is packed under its tenant's name, the defaults under ''. A missing setting is the default's. `rate` is {as
-- given, µs between tasks at an even rate, burst}.

-- @include lib/counts.lua
-- @include lib/lanes.lua

local OLD_RATE = 60e6 -- µs past its due time when a rate's state is deleted; by then it means nothing

local has_policies = call('EXISTS', POLICY) == 1
local NONE = {}

local function policy_of(name)
  local packed = has_policies and call('HGET', POLICY, name)
  return packed and cmsgpack.unpack(packed) or NONE
end

local defaults = policy_of('')

-- Returns what limits a tenant with that policy, or false. `load_usage` adds the counts.
local function limits_in(policy)
  local concurrency = policy.concurrency or defaults.concurrency
  local rate, backlog = policy.rate or defaults.rate, policy.backlog or defaults.backlog
  if not (concurrency or rate or backlog or policy.paused or policy.moving) then return false end
  return {
    concurrency = concurrency or math.huge,
    interval = rate and rate[2] or 0,
    tolerance = rate and rate[2] * (rate[3] - 1) or 0,
    backlog = backlog or math.huge,
    paused = policy.paused or policy.moving, -- a tenant that moves to another shard is 'held', 'gone' or 'arriving'
    gone = policy.moving == 'gone',
    started = 0, -- its running tasks
    queued = 0, -- its tasks in the mailbox
    suspects = 0, -- its queued tasks beside the mailbox
    due = 0, -- µs: when its next task is due at an even rate, GCRA's theoretical arrival time
    throttled = false, -- ms until which only its rate holds its tasks back
    checked = false, -- whether `update_ring` has looked at it
  }
end

-- Loads the usage of tenants with `limits`, before any count changes: live tasks that are not queued are running.
local function load_usage(names, limits)
  load_counts(names)
  local dues = read_all('ZMSCORE', RATES, names)
  local has_suspects = call('EXISTS', SUSPECTED) == 1
  for i, name in ipairs(names) do
    local limit = limits[i]
    limit.queued = lanes and lanes.queued(name) or call('ZCARD', QUEUE .. name)
    limit.suspects = has_suspects and call('ZCARD', SUSPECTS .. name) or 0
    limit.started = live(counts[name]) - limit.queued - limit.suspects
    -- It may stem from another rate.
    limit.due = math.min(tonumber(dues[i]) or 0, shard.now + limit.tolerance + limit.interval)
  end
end

-- Whether a tenant with limits belongs on the ring: true, or when it will, in ms, or false. The rate is the generic
-- cell rate algorithm (ITU-T I.371): a task may start early by the burst at most.
local function eligibility(limits)
  if limits.queued <= 0 or limits.paused or limits.started >= limits.concurrency then return false end
  local free_at = limits.due - limits.tolerance
  return free_at <= shard.now or math.ceil(free_at / 1000)
end

local function count_start(limits)
  limits.started = limits.started + 1
  if limits.interval > 0 then limits.due = math.max(shard.now, limits.due) + limits.interval end
end
