-- The ring: which tenants could be served now, and in what order.
--
-- Selection is self-clocked fair queuing (Golestani 1994): the ring holds the finish tag of each tenant's next task,
-- the least is served, and virtual time is the tag last served. Serving a tenant adds cost / weight to its tag; one
-- that arrives gets virtual time plus cost / weight. So it waits its turn like all others, and gains nothing by
-- draining and coming back; and since nobody's last tag is ever ahead of virtual time, none needs to be remembered.
-- A tenant is on the ring exactly when its mailbox is not empty and fewer of its tasks run than its concurrency
-- allows.

-- A tenant in memory is an array, not a table of named fields: half the allocations, and this is where scripts
-- spend their time.
local NAME, WEIGHT, CONCURRENCY = 1, 2, 3
local STARTED = 4 -- how many of its tasks run: known only where there is a limit
local TAG, STORED = 5, 6 -- its tag as it will be, and as it is on the ring; false: none
local HEAD, TAKEN, LIMIT = 7, 8, 9 -- the first ids of its mailbox, how many are claimed, how many were asked for
local LEAVES = 10

local tenants = {}
local has_policies = call('EXISTS', POLICY) == 1

local function set_policy(t, packed)
  local policy = packed and cmsgpack.unpack(packed) or {}
  t[WEIGHT] = policy.weight or 1
  t[CONCURRENCY] = policy.concurrency or false
end

-- Makes the tenants of those names that are not here yet. Before any count is changed: where there is a limit,
-- the tasks that run are those that live but are not in the mailbox.
local function meet(names)
  local policies = has_policies and read_all('HMGET', POLICY, names) or {}
  for i, name in ipairs(names) do
    if not tenants[name] then
      local t = { name, 1, false, 0, false, false, false, 0, 0, false }
      if policies[i] then
        set_policy(t, policies[i])
        if t[CONCURRENCY] then
          load_counts({ name })
          t[STARTED] = live(counts[name]) - call('ZCARD', QUEUE .. name)
        end
      end
      tenants[name] = t
    end
  end
end

local function has_room(t) return not t[CONCURRENCY] or t[STARTED] < t[CONCURRENCY] end

-- A task of a tenant has started (1) or ceased to run (-1).
local function add_started(name, n)
  local t = tenants[name]
  if t then t[STARTED] = t[STARTED] + n end
end

-- Gives a tag to each of `names`, tenants with something in their mailbox, that is not on the ring and has room.
-- Reads only. Returns those that will be on the ring anew.
local function arrive(names)
  local arrivals = {}
  for i, stored in ipairs(read_all('ZMSCORE', RING, names)) do
    local t = tenants[names[i]]
    if stored then
      t[STORED] = tonumber(stored)
      t[TAG] = t[TAG] or t[STORED]
    elseif not t[TAG] and has_room(t) then
      t[TAG] = shard.virtual + 1 / t[WEIGHT]
      arrivals[#arrivals + 1] = t
    end
  end
  return arrivals
end

-- The tenants with a limit that have room and a task: where tasks have ceased to run, they may have to arrive.
local function with_room()
  local names = {}
  for name, t in pairs(has_policies and tenants or {}) do
    if t[CONCURRENCY] and has_room(t) and call('ZCARD', QUEUE .. name) > 0 then names[#names + 1] = name end
  end
  return names
end

-- Wakes one runtime that would take more work; it wakes the next if it leaves any. A runtime that was killed
-- hears nothing (PUBLISH counts who did), so the next one is tried.
local function wake_idle()
  for _ = 1, 8 do
    local runtime = call('SPOP', IDLE)
    if not runtime or call('PUBLISH', INBOX .. runtime, 'w') > 0 then return end
  end
end

-- Writes what has changed, ends a busy period, and so ends what `begin_writing` began. Then it wakes who should know:
-- somebody for tenants that have come onto the ring, or where there was `more` to claim than was wanted.
local function save_shard(more)
  local stay, leave, came = {}, {}, false
  for name, t in pairs(tenants) do
    local tag = t[TAG]
    if t[LEAVES] then
      leave[#leave + 1] = name
    elseif tag ~= t[STORED] then
      came = came or not t[STORED]
      stay[#stay + 1], stay[#stay + 2] = exact(tag), name
    end
  end
  write_all('ZADD', RING, stay)
  write_all('ZREM', RING, leave)
  local empty = (more or #leave > 0) and call('ZCARD', RING) == 0
  if empty then shard.virtual = 0 end -- nobody waits: start afresh
  call('HSET', META, 'stamp', integer(shard.stamp), 'virtual', exact(shard.virtual), 'total', pack_counts(total),
    'torn', '')
  if not empty and (came or more) then wake_idle() end
  if was_busy and live(total) == 0 then call('PUBLISH', EVENTS, 'd') end
end
