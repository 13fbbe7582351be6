-- What a task costs its tenant: 1, or the seconds that it runs, if time is what is shared.
--
-- These are unknown at the claim, so the tenant is charged an estimate, a moving average by tenant and actor. The error
-- is a debt, paid once the tenant has a place on the ring.

-- @include lib/base.lua

local actor_of, costs_of, actor_in, average_cost, cost_of, arrival_cost, add_debt, update_cost, save_costs
do
  local DEFAULT_COST = 0.1 -- s, for an actor that has not run yet
  local NEW_WEIGHT = 0.2 -- of the newest value in a moving average
  local KEEP_COSTS = 3600000 -- ms for which costs outlive the last task

  local all_costs = {} -- tenant, group, or '' for all together -> costs

  local function averaged(average, seconds)
    return average and average + NEW_WEIGHT * (seconds - average) or seconds
  end

  function costs_of(name)
    local costs = all_costs[name]
    if not costs then
      costs = { actors = {}, learned = {}, average = false, debt = 0 }
      local flat = call('HGETALL', COSTS .. name)
      for i = 1, #flat, 2 do
        if flat[i] == shard.owed then
          local average, debt, period = struct.unpack('>ddd', flat[i + 1])
          costs.debt = period == shard.period and debt or 0 -- forgiven: virtual time has restarted, so nobody waits
          if flat[i] == '' then costs.average = average >= 0 and average end
        elseif flat[i] == '' then
          local average = struct.unpack('>d', flat[i + 1])
          costs.average, costs.rest = average >= 0 and average, flat[i + 1]:sub(9)
        elseif flat[i]:byte() ~= 31 then
          costs.actors[flat[i]] = struct.unpack('>d', flat[i + 1])
        end
      end
      all_costs[name] = costs
    end
    return costs
  end

  -- Returns the actor of a route (see lanes.lua), as JSON text.
  function actor_of(route)
    local at = route:find('\\u001f', 1, true)
    return at and route:sub(1, at - 1) or route
  end

  -- Returns the actor in the body of a live task, or in a settled one's outcome: only a key to its costs.
  function actor_in(record, body)
    local route = record:match('^%["(.-)"', body) or record:match('^{"actor":"(.-)"', body)
    return route and actor_of(route)
  end

  function cost_of(name, id)
    if not shard.by_time then return 1 end
    local record = call('GETRANGE', TASK .. id, 0, 2400) -- header and route
    local actor = readable(record) and actor_in(record, (select(7, struct.unpack(HEADER, record))))
    return costs_of(name).actors[actor] or costs_of('').actors[actor] or DEFAULT_COST
  end

  function average_cost(name)
    return shard.by_time and (costs_of(name).average or costs_of('').average or DEFAULT_COST) or 1
  end

  -- Returns the cost to charge a tenant that arrives, and settles its debt.
  function arrival_cost(name)
    if not shard.by_time then return 1 end
    local costs = costs_of(name)
    local debt = costs.debt
    if debt ~= 0 then costs.debt, costs.changed = 0, true end
    return math.max(0, average_cost(name) + debt)
  end

  function add_debt(name, seconds)
    local costs = costs_of(name)
    costs.debt, costs.changed = costs.debt + seconds, true
  end

  function update_cost(name, actor, seconds)
    for _, owner in ipairs({ name, '' }) do
      local costs = costs_of(owner)
      costs.average, costs.changed = averaged(costs.average, seconds), true
      if actor and actor ~= '' then
        costs.actors[actor] = averaged(costs.actors[actor], seconds)
        costs.learned[actor] = true
      end
    end
  end

  function save_costs()
    for name, costs in pairs(all_costs) do
      if costs.changed then
        local fields = { shard.owed, struct.pack('>ddd', costs.average or -1, costs.debt, shard.period) }
        if shard.owed ~= '' then
          fields[3], fields[4] = '', struct.pack('>d', costs.average or -1) .. (costs.rest or struct.pack('>dd', 0, 0))
        end
        for actor in pairs(costs.learned) do
          fields[#fields + 1], fields[#fields + 2] = actor, struct.pack('>d', costs.actors[actor])
        end
        write_all('HSET', COSTS .. name, fields)
        call('PEXPIRE', COSTS .. name, KEEP_COSTS)
      end
    end
  end
end
