-- Slots of several kinds, and batches: which of a tenant's tasks can start in the runtime.
--
-- A task takes a slot of its kind. A batch takes one slot, and up to so many tasks of one actor and tenant: those that
-- join it are claimed together with its first one, or later while the runtime gathers it.

-- @include lib/ring.lua
-- @include lib/lane_heads.lua
-- @include lib/budget.lua
-- @takes peek, stays_on_ring, limits_taken, write_slots from lib/claim.lua
-- @takes idle_of from lib/homes.lua

local MOST_STUCK = 50 -- tasks of a tenant that one turn looks at to find one that can start
local MOST_LOOKED = 300 -- tasks behind the first of their tenants that one turn looks at
local MOST_ALONG = 200 -- tasks that join batches in one turn

-- A runtime with slots of several kinds has room for so many tasks of each. `capped` is the kind of each actor as in
-- records; other actors are of kind 1; nil: there is one kind. Tenants of whom nothing can start are passed over.
local capped, room, letters
local room_ahead = 0 -- the part of the room for tasks that may start soon; batches take none of it
local wanted = {} -- kinds for which a task found no room -> the lanes of such tasks
local looked = 0 -- tasks behind the first of their tenants
local batches = NONE -- actor -> the most tasks of its batches
local along, added = {}, 0 -- id, tenant and cost of what joins a batch; how many of them are among the claims

-- Notes that there is no room of a kind for a task of a lane.
local function note_no_room(kind, lane)
  wanted[kind] = wanted[kind] or {}
  wanted[kind][lane or ''] = true
end

-- Notes that the next task of a tenant, `id`, starts.
local function count_taken(t, id)
  t[TAKEN] = t[TAKEN] + 1
  weigh(id)
  if lanes then lanes.add(t[NAME], lane_of_head[id], -1) end
  if t[LIMITS] then
    t[LIMITS].queued = t[LIMITS].queued - 1
    count_start(t[LIMITS])
    if lanes then lanes.changed[t[NAME]] = true end
  end
  if limits then limits_taken[id] = limits.start(id, t[NAME]) end
end

local function add_claim(claims, id, owner, cost)
  local i = #claims.ids + 1
  claims.ids[i], claims.owners[i], claims.charged[i] = id, owner, cost
end

-- These are there only if the runtime has slots of several kinds, or batches.
local kind_of, next_startable, take_along, fill_open, add_along
local function open_slots()
  -- Returns the kind of slot that a task needs, and its actor if that is in `capped`. A name may contain quotation marks,
  -- which a backslash precedes.
  function kind_of(id)
    local record = call('GETRANGE', TASK .. id, 0, 2400) -- header and route
    local first = readable(record) and select(7, struct.unpack(HEADER, record)) + 2
    local last = first
    repeat
      last = last and record:find('",', last, true)
      local actor = last and actor_of(record:sub(first, last - 1))
      if actor and capped[actor] then return capped[actor], actor end
      last = last and last + 1
    until not last or record:sub(last - 2, last - 2) ~= '\\'
    return 1
  end

  -- Whether a task can start in the runtime. If so, it takes room. Returns its actor, too, if that has batches.
  local function can_start(id)
    local kind, actor = kind_of(id)
    local has_batches = actor and batches[actor]
    if room[kind] - (has_batches and kind == 1 and room_ahead or 0) < 1 then
      note_no_room(kind, lane_of_head[id])
      return false
    end
    room[kind] = room[kind] - 1
    return true, has_batches and actor
  end

  -- Makes the id at `at` in a tenant's mailbox the next.
  local function bring_forward(t, at)
    local first = t[TAKEN] + 1
    if at > first then table.insert(t[HEAD], first, table.remove(t[HEAD], at)) end
  end

  -- Takes up to `n` tasks of an actor that join a batch of the tenant, until there are `bytes` of records in all. Passes
  -- over some of other actors, which keep their places. Returns what these tasks cost.
  function take_along(t, actor, n, bytes)
    local all, cost = n, 0
    local at = t[TAKEN] + 1 + (t[STUCK] or 0)
    local last = at + MOST_STUCK
    while n > 0 and at < last and #along < MOST_ALONG and claimed_bytes < bytes do
      local id = (not t[LIMITS] or eligibility(t[LIMITS]) == true) and peek(t, all + 1, at)
      if not id then break end
      if select(2, kind_of(id)) == actor then
        t[STUCK] = t[STUCK] or 0
        bring_forward(t, at)
        local own = cost_of(t[NAME], id)
        along[#along + 1] = { id, t, own }
        cost, n, last = cost + own, n - 1, last + 1
        count_taken(t, id)
      else
        looked = looked + 1
        if looked > MOST_LOOKED then break end
      end
      at = at + 1
    end
    return cost
  end

  -- Returns the first id in a tenant's mailbox that can start, or nil. It becomes the next. Returns its actor, too, if
  -- that has batches.
  function next_startable(t, n)
    local first = t[TAKEN] + 1
    local at = first + (t[STUCK] or 0)
    while at < first + MOST_STUCK do
      local id = peek(t, n, at)
      if not id then return end
      local starts, actor = can_start(id)
      if starts then
        bring_forward(t, at)
        return id, actor
      end
      at = at + 1
      t[STUCK] = at - first
      looked = looked + 1
      if looked > MOST_LOOKED and t[STUCK] > 0 then return end
    end
  end

  -- Takes tasks that join batches which the runtime gathers already. `open` is the tenant, the actor and how many may
  -- join, for each batch. They leave half of the bytes to others.
  function fill_open(open)
    local names = {}
    for i = 1, #open, 3 do names[#names + 1] = open[i] end
    load_tenants(names)
    load_tags(names)
    for i = 1, #open, 3 do
      local t = tenants[open[i]]
      local cost = t[TAG] and not t[LEAVES] and take_along(t, open[i + 1], open[i + 2], most_bytes / 2) or 0
      for _, entry in ipairs(cost > 0 and { t, t[OUTER].group } or NONE) do
        if entry[TAG] == entry[STORED] then table.insert(entry[OUTER].changed, entry) end
        entry[TAG] = entry[TAG] + cost / entry[WEIGHT]
      end
      if cost > 0 and not stays_on_ring(t, 1) then t[LEAVES] = true end
    end
  end

  -- Adds what has joined batches to the claims.
  function add_along(claims)
    while added < #along do
      added = added + 1
      add_claim(claims, unpack(along[added]))
    end
  end

  -- Wakes a resting runtime, of those with this key, that can start tasks of any of these sorts, or that has one kind of
  -- slots. Returns whether one was there.
  local function wake_for(sorts, idle)
    local able, free = call('SMEMBERS', idle), {}
    for i, letters_free in ipairs(read_all('HMGET', IDLE_SLOTS, able)) do free[able[i]] = letters_free end
    local tried = 0
    for _, other in ipairs(able) do
      if tried < 8 and (not free[other] or free[other]:find('[' .. sorts .. ']')) then
        tried = tried + 1
        call('HDEL', IDLE_SLOTS, other)
        call('SREM', idle, other)
        if call('PUBLISH', INBOX .. other, 'w') > 0 then return true end
      end
    end
  end

  -- Wakes a runtime that can start what was passed over: of the same kind of runtimes, or else of each other kind that
  -- serves the lanes of these tasks.
  local function wake_others(sorts)
    if wake_for(sorts, shard.idle) or not shard.several then return end
    for i = 2, #lanes.kinds do
      local serves = false
      for _, passed_lanes in pairs(wanted) do
        for lane in pairs(passed_lanes) do serves = serves or lanes.serves(lanes.kinds[i], lane) end
      end
      if serves then wake_for(sorts, idle_of(lanes.kinds[i])) end
    end
  end

  -- Notes for which sorts of actors a runtime has free slots, if it rests. Wakes one that can start what was passed over.
  function write_slots(runtime, rests)
    local free, missing = {}, {}
    for kind, left in ipairs(room or NONE) do
      if left > 0 then free[#free + 1] = letters[kind] end
      if wanted[kind] then missing[#missing + 1] = letters[kind] end
    end
    if room and rests then call('HSET', IDLE_SLOTS, runtime, table.concat(free)) else call('HDEL', IDLE_SLOTS, runtime) end
    if #missing > 0 then wake_others(table.concat(missing)) end
  end
end
