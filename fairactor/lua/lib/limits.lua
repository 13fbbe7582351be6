-- Limits beside those of tenants: of what tenants share, and of actors.
--
-- A task counts for the limits that its route names, and for that of its actor, if there is one. Together they are the set of
-- its lane. If a limit is `per` tenant, each tenant has an instance of it, named after both, with U+001F between. A pause
-- of one tenant is a setting of its instance, whatever the limit is like.
--
-- A rate is the generic cell rate algorithm in units of cost: what a start takes may be paid for later, up to the burst. What
-- takes more than the burst waits until nothing is owed. A start may give back what it took only if something has been owed all
-- the time since. If not, a part of the rate went unused, and with this as well more than the rate would start.

-- @include lib/base.lua
-- @takes lanes, limits, open_limits, open_lines from lib/lanes.lua

function open_limits()
  if limits then return end
  local NONE_SET = {}
  local sets = {} -- lane -> its set: names, joined by U+001F; false: it has none
  local names_of = {} -- set -> its names
  local known = {} -- limit or instance -> its state, as it will be
  local function nothing() return false end
  limits = {
    returned = {}, -- limits and instances that let more start now than before -> tenant of the instance
    withdrawn = {}, -- sets of whose tasks some leave unclaimed
    -- plan.lua replaces these:
    planned = nothing, has_planned = nothing, start = nothing, settle_plan = nothing, waits = nothing,
  }

  -- Returns the set of a lane, or false.
  function limits.set_of(lane)
    local set = sets[lane]
    if set ~= nil then return set end
    set = false
    if lane ~= '' then
      local fields, names, seen = lanes.fields_of(lane), {}, {}
      for name in (fields[4] or ''):gmatch('[^,]+') do names[#names + 1], seen[name] = name, true end
      if not seen[fields[1]] and call('HEXISTS', LIMIT_SETTINGS, fields[1]) == 1 then names[#names + 1] = fields[1] end
      set = #names > 0 and table.concat(names, '\31')
      if set then names_of[set] = names end
    end
    sets[lane] = set
    return set
  end

  -- Returns the names in a set.
  function limits.names_in(set)
    local names = names_of[set]
    if not names then
      names = {}
      for name in set:gmatch('[^\31]+') do names[#names + 1] = name end
      names_of[set] = names
    end
    return names
  end

  -- Returns what a start of a task takes, by the names of its limits; 1 if that is not given.
  function limits.costs_in(route)
    local fields, costs, numbers = lanes.fields_of(route), {}, {}
    for number in (fields[5] or ''):gmatch('[^,]+') do numbers[#numbers + 1] = tonumber(number) or 1 end
    for name in (fields[4] or ''):gmatch('[^,]+') do costs[name] = table.remove(numbers, 1) end
    return costs
  end

  local function instance_of(name, tenant) return name .. '\31' .. tenant end

  -- Gives a limit or an instance its settings. What its actor's code declares counts where nothing else is set.
  local function use(limit, own)
    local declared = own.declared or NONE_SET
    local rate = own.rate or declared.rate
    limit.concurrency = own.concurrency or declared.concurrency or math.huge
    limit.interval = rate and rate[2] or 0 -- µs for a unit of cost
    limit.burst = rate and rate[3] or 1
    limit.per_tenant = (own.per or declared.per) == 'tenant'
    limit.paused = own.paused == -1 and math.huge or own.paused or 0 -- until when, ms
  end

  -- Loads the state of limits and instances.
  local function load_all(fields)
    local missing = {}
    for _, field in ipairs(fields) do
      if not known[field] then missing[#missing + 1], known[field] = field, NONE_SET end
    end
    local packed = read_all('HMGET', LIMIT_SETTINGS, missing)
    local running, dues = read_all('HMGET', LIMIT_STARTED, missing), read_all('ZMSCORE', LIMIT_DUES, missing)
    local busy = read_all('HMGET', LIMIT_BUSY, missing)
    for i, field in ipairs(missing) do
      local started, due = tonumber(running[i] or 0), tonumber(dues[i] or 0)
      local limit = {
        started = started, stored = started, -- tasks that run
        due = due, stored_due = due, -- µs: when what was taken is paid for
        since = tonumber(busy[i] or nil), -- ms: since when something has been owed without a break
        concurrency = math.huge, interval = 0, burst = 1, per_tenant = false, paused = 0, -- see `use`
      }
      use(limit, packed[i] and cmsgpack.unpack(packed[i]) or NONE_SET)
      known[field] = limit
    end
  end

  -- Loads what starts count for: of some sets, for the tenants that are in the list at the same place.
  function limits.load(of_sets, tenants_of)
    local fields = {}
    for i, set in ipairs(of_sets) do
      for _, name in ipairs(limits.names_in(set)) do
        fields[#fields + 1] = name
        for _, tenant in ipairs(tenants_of[i] or NONE_SET) do fields[#fields + 1] = instance_of(name, tenant) end
      end
    end
    load_all(fields)
  end

  -- Returns from when on a start may take `cost`, in µs; math.huge: no time is enough.
  local function opens_at(limit, paused, cost)
    if limit.started >= limit.concurrency then return math.huge end
    local owed_till = limit.interval > 0 and limit.due - limit.interval * math.max(0, limit.burst - cost) or 0
    return math.max(paused * 1000, owed_till)
  end

  local function as_answer(at)
    if at <= shard.now then return true end
    return at < math.huge and math.ceil(at / 1000)
  end

  -- Whether the limits of a set that tenants share let a task start that takes these costs: true, or the ms from which on, or
  -- false if no time is enough.
  function limits.opens(set, costs)
    local at = 0
    for _, name in ipairs(limits.names_in(set)) do
      local limit = known[name]
      if limit.per_tenant then
        at = math.max(at, limit.paused * 1000)
      else
        at = math.max(at, opens_at(limit, limit.paused, costs[name] or 1))
      end
    end
    return as_answer(at)
  end

  -- Likewise, the instances of a tenant.
  function limits.opens_for(set, costs, tenant)
    local at = 0
    for _, name in ipairs(limits.names_in(set)) do
      local limit, own = known[name], known[instance_of(name, tenant)]
      at = math.max(at, own.paused * 1000)
      if limit.per_tenant then
        own.concurrency, own.interval, own.burst = limit.concurrency, limit.interval, limit.burst
        at = math.max(at, opens_at(own, own.paused, costs[name] or 1))
      end
    end
    return as_answer(at)
  end

  -- Whether what a start takes of a set may count for its tenant only.
  function limits.has_own_rates(set)
    for _, name in ipairs(limits.names_in(set)) do
      if known[name].per_tenant and known[name].interval > 0 then return true end
    end
    return false
  end

  -- Returns the set of a task, and what its start takes; nil if nothing limits it.
  function limits.of_task(id, tenant)
    local route = lanes.route_in(call('GETRANGE', TASK .. id, 0, 4095))
    local set = limits.set_of(lanes.of_route(route))
    if not set then return nil end
    limits.load({ set }, { { tenant } })
    return set, limits.costs_in(route)
  end

  -- Notes that a limit, or the instance of a tenant, may let more start now.
  local function note_return(field, tenant)
    limits.returned[field] = tenant
    if field:find('\31', 1, true) then lanes.changed[tenant] = true end
  end

  -- Notes that a task leaves the mailbox of a tenant unclaimed: the line may have waited for what it takes.
  function limits.note_withdrawn(tenant, lane)
    local set = limits.set_of(lane)
    if set then limits.withdrawn[set], lanes.changed[tenant] = true, true end
  end

  -- Changes the settings of a limit, or of the instance of a tenant. What is owed stays the same number of units.
  function limits.change(field, tenant, settings)
    load_all({ field })
    local limit = known[field]
    local owed = limit.interval > 0 and math.max(0, limit.due - shard.now) / limit.interval or 0
    use(limit, settings)
    if tenant == '' then limit.due = owed > 0 and limit.interval > 0 and shard.now + owed * limit.interval or 0 end
    note_return(field, tenant)
  end

  -- Whether a task of a tenant may start.
  function limits.lets_start(id, tenant)
    local set, costs = limits.of_task(id, tenant)
    return not set or limits.opens(set, costs) == true and limits.opens_for(set, costs, tenant) == true
  end

  -- Changes what is owed by the cost of a start that was made at this moment, in ms.
  local function change_due(limit, cost, started)
    if cost > 0 then
      if limit.due <= shard.now then limit.since = shard.ms end
      limit.due = math.max(shard.now, limit.due) + cost * limit.interval
    elseif limit.due <= shard.now or started >= (limit.since or math.huge) then
      limit.due = math.max(0, limit.due + cost * limit.interval)
    end
  end

  -- Counts a start. Returns what it took, for the mark of the claim: limit or instance, cost, ...
  function limits.take(set, costs, tenant)
    local taken = {}
    for _, name in ipairs(limits.names_in(set)) do
      local cost, field = costs[name] or 1, known[name].per_tenant and instance_of(name, tenant) or name
      local limit = known[field]
      limit.started = limit.started + 1
      change_due(limit, cost)
      taken[#taken + 1], taken[#taken + 2] = field, cost
    end
    return taken
  end

  -- Counts the start of a task. Returns what it took, or nil.
  function limits.take_for(id, tenant)
    local set, costs = limits.of_task(id, tenant)
    return set and limits.take(set, costs, tenant) or nil
  end

  -- Takes back a start of this script.
  function limits.untake(taken)
    for i = 1, #taken, 2 do
      local limit = known[taken[i]]
      limit.started = limit.started - 1
      change_due(limit, -taken[i + 1], shard.ms)
    end
  end

  -- Loads what the claims with these marks took.
  function limits.load_marks(marks)
    local fields = {}
    for _, mark in ipairs(marks) do -- false: a claim that is not there
      local taken = mark and taken_in(mark) or NONE_SET
      for i = 1, #taken, 2 do fields[#fields + 1], fields[#fields + 2] = taken[i], taken[i]:match('^[^\31]*') end
    end
    load_all(fields)
  end

  -- Returns the settings of the limit whose rate counts for a field.
  local function rate_of(field)
    local name = field:match('^[^\31]*')
    if not (known[name] and known[field]) then load_all({ name, field }) end
    known[field].interval = known[name].interval
    return known[field]
  end

  -- Counts a task that stops running, by the mark of its claim. `never_started`: its start is taken back.
  function limits.give_back(mark, never_started)
    local taken = taken_in(mark)
    for i = 1, #taken, 2 do
      local limit, name = rate_of(taken[i]), taken[i]:match('^[^\31]*')
      if limit.started >= known[name].concurrency or never_started then
        note_return(taken[i], tenant_in(mark))
      end
      limit.started = math.max(0, limit.started - 1)
      if never_started then change_due(limit, -taken[i + 1], made_at(mark)) end
    end
  end

  -- Changes what a start took of a limit to what it used, by the mark of the claim and what it took. Returns the difference in
  -- cost, or nil if it took nothing of it.
  function limits.correct(mark, taken, name, tenant, used)
    for i = 1, #taken, 2 do
      if taken[i] == name or taken[i] == instance_of(name, tenant) then
        local limit, difference = rate_of(taken[i]), used - taken[i + 1]
        change_due(limit, difference, made_at(mark))
        if difference < 0 then note_return(taken[i], tenant) end
        taken[i + 1] = used
        return difference
      end
    end
  end

  -- Writes the state of limits.
  function limits.save()
    if not shard.limited then call('HSET', META, 'limited', '1') end
    local counts_now, none, dues, paid, busy = {}, {}, {}, {}, {}
    for field, limit in pairs(known) do
      if limit.started and limit.started ~= limit.stored then
        if limit.started > 0 then
          counts_now[#counts_now + 1], counts_now[#counts_now + 2] = field, limit.started
        else
          none[#none + 1] = field
        end
      end
      if limit.due and limit.due ~= limit.stored_due then
        if limit.due > shard.now then
          dues[#dues + 1], dues[#dues + 2] = integer(limit.due), field
          busy[#busy + 1], busy[#busy + 2] = field, integer(limit.since or shard.ms)
        else
          paid[#paid + 1] = field
        end
      end
    end
    write_all('HSET', LIMIT_STARTED, counts_now)
    write_all('HDEL', LIMIT_STARTED, none)
    write_all('ZADD', LIMIT_DUES, dues)
    write_all('ZREM', LIMIT_DUES, paid)
    write_all('HSET', LIMIT_BUSY, busy)
    write_all('HDEL', LIMIT_BUSY, paid)
  end

  if open_lines then open_lines() end -- the first task with a limit may come late: a step of a graph whose parents end here
end

if shard.limited then open_limits() end
