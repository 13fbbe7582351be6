-- The fair choice of the next tasks.
--
-- A line is the part of a ring that is to be served from, in the order of its tags.

-- @include lib/ring.lua
-- @include lib/queues.lua

local release_throttled, choose_tasks, write_claims, substitute_record
do
  local BATCH = 500 -- tenants whose rate gives way in one turn
  local unlimited -- those of them that have no limit any more

  local function by_tag(a, b) return a[TAG] < b[TAG] end

  -- Puts something into a line by its tag: nearly always at the end, so it looks from there.
  local function insert_by_tag(candidates, t)
    local i, tag = #candidates, t[TAG]
    while i > 0 and candidates[i] and candidates[i][TAG] > tag do
      candidates[i + 1] = candidates[i]
      i = i - 1
    end
    candidates[i + 1] = t
  end

  -- The line of the first `n` on a ring. To take n times from it is exact: who stands behind could not come first.
  -- Returns whether there may be more.
  local function load_candidates(ring, n)
    local candidates, names = {}, {}
    local found = n > 0 and call('ZRANGE', ring.key, 0, n + #ring.changed - 1, 'WITHSCORES') or {}
    for i = 1, #found, 2 do
      if found[i]:byte() ~= GROUP_BYTE then names[#names + 1] = found[i] end
    end
    load_tenants(names)
    for i = 1, #found, 2 do
      local t = tenants[found[i]] or group_of(found[i]:sub(2))
      t[STORED] = tonumber(found[i + 1])
      t[TAG] = t[TAG] or t[STORED]
      if t[TAG] == t[STORED] and not t[LEAVES] then candidates[#candidates + 1] = t end
    end
    for _, t in ipairs(ring.changed) do
      if not t[LEAVES] then insert_by_tag(candidates, t) end
    end
    ring.candidates, ring.head = candidates, 1
    ring.read_ahead = math.ceil(n / math.max(#candidates, 1)) + 1 -- one more than its share, to see whether it stays
    return #found == 2 * (n + #ring.changed)
  end

  -- The line of certain tenants, on a ring that is made for this turn.
  local function load_candidates_of(names, n, virtual)
    local own = { candidates = {}, head = 1, virtual = virtual, read_ahead = math.ceil(n / math.max(#names, 1)) + 1 }
    load_tenants(names)
    load_tags(names)
    for _, group in pairs(groups) do group[INNER].candidates = nil end
    for _, name in ipairs(names) do
      local t = tenants[name]
      local group = t[OUTER].group
      if t[TAG] and not t[LEAVES] and not group then
        own.candidates[#own.candidates + 1] = t
      elseif t[TAG] and not t[LEAVES] then
        local inner = group[INNER]
        if not inner.candidates then
          inner.candidates, inner.head, inner.read_ahead = {}, 1, own.read_ahead
          own.candidates[#own.candidates + 1] = group
        end
        inner.candidates[#inner.candidates + 1] = t
      end
    end
    for _, group in pairs(groups) do
      if group[INNER].candidates then table.sort(group[INNER].candidates, by_tag) end
    end
    table.sort(own.candidates, by_tag)
    return own
  end

  -- Groups some of whose tenants were served may have others; on the ring they do not stand yet where they are now.
  local function reset_group_candidates()
    local changed = {}
    for _, t in ipairs(root.changed) do changed[t] = true end
    for _, group in pairs(groups) do
      group[INNER].candidates = nil
      if group[TAG] ~= group[STORED] and not changed[group] then table.insert(root.changed, group) end
    end
  end

  local function by_place(a, b) return a.place < b.place end

  -- The first `n` of a mailbox, with what this script puts there.
  local function read_head(name, n)
    local arriving = queues[name]
    if not arriving then return call('ZRANGE', QUEUE .. name, 0, n - 1) end
    local stored, all, ids = call('ZRANGE', QUEUE .. name, 0, n - 1, 'WITHSCORES'), {}, {}
    for _, list in ipairs({ stored, arriving }) do
      local id_at = list == stored and 0 or 1
      for i = 1, #list, 2 do all[#all + 1] = { id = list[i + id_at], place = tonumber(list[i + 1 - id_at]) } end
    end
    table.sort(all, by_place)
    -- Behind the last of those that are stored there may be others.
    for i = 1, #stored == 2 * n and n or #all do ids[i] = all[i].id end
    return ids
  end

  -- The next id in a tenant's mailbox, or nil. Reads `n` ahead, and again if that was not enough.
  local function peek(t, n)
    local head, at = t[HEAD], t[TAKEN] + 1
    if not head or (at > #head and #head == t[AHEAD]) then
      t[AHEAD] = head and 2 * t[AHEAD] or n
      head = read_head(t[NAME], t[AHEAD])
      t[HEAD] = head
    end
    return head[at]
  end

  -- Whether a tenant, after it was served, can be served again.
  local function can_be_served_again(t, read_ahead)
    local limits = t[LIMITS]
    if not limits then return peek(t, read_ahead) end
    local eligible = eligibility(limits)
    limits.throttled = eligible ~= true and eligible
    return eligible == true
  end

  -- Takes the task that is next from the line of a ring: its id, its tenant and what that is charged; nil where there
  -- is none.
  local function take(ring, n)
    local candidates = ring.candidates
    while candidates[ring.head] do
      local t = candidates[ring.head]
      candidates[ring.head] = false
      ring.head = ring.head + 1
      local inner, id, owner, cost = t[INNER], nil, t, nil
      if inner then
        if not inner.candidates then load_candidates(inner, n) end
        id, owner, cost = take(inner, n)
      elseif not t[LIMITS] or eligibility(t[LIMITS]) == true then
        id = peek(t, ring.read_ahead)
        cost = id and cost_of(t[NAME], id)
      end
      if id then
        if not (ring.stealing and dedicated_time(owner[NAME])) then ring.virtual = math.max(ring.virtual, t[TAG]) end
        t[TAG] = t[TAG] + cost / t[WEIGHT]
        if not inner then
          t[TAKEN] = t[TAKEN] + 1
          if t[LIMITS] then
            t[LIMITS].queued = t[LIMITS].queued - 1
            count_start(t[LIMITS])
          end
        end
      end
      if inner then
        if inner.candidates[inner.head] then insert_by_tag(candidates, t) end -- else whether the group leaves is seen at the end
      elseif can_be_served_again(t, ring.read_ahead) then
        insert_by_tag(candidates, t)
      else
        t[LEAVES] = true
      end
      if id then return id, owner, cost end
    end
  end

  -- Holds back tenants of a home that have been served elsewhere, more slowly.
  local function raise_tags(own)
    for _, t in ipairs(own.candidates) do t[TAG] = math.max(t[TAG], own.virtual) end
  end

  -- Chooses tasks, up to `n` in all: first of the tenants that are assigned to the runtime, then of those that it may
  -- steal from, or of all alike.
  local function fill(claims, runtime, n)
    local ids, owners, charged = claims.ids, claims.owners, claims.charged
    local function serve(ring)
      while #ids < n do
        local id, owner, cost = take(ring, n)
        if not id then return end
        local i = #ids + 1
        ids[i], owners[i], charged[i] = id, owner, cost
      end
    end
    local function serve_all() -- who should have left the ring, since the defaults have changed, is passed over
      local length, more = n, true
      while #ids < n and more do
        more = load_candidates(root, length)
        serve(root)
        length = 2 * length
      end
    end
    local own_time = dedicated[runtime]
    if not own_time then return serve_all() end
    local own = load_candidates_of(call('SMEMBERS', ASSIGNED .. runtime), n, math.max(own_time, root.virtual))
    raise_tags(own)
    serve(own)
    claims.dedicated_time = own.virtual
    local assigned, others = #ids, #ids < n and call('SMEMBERS', STEAL .. runtime) or {}
    if others[1] == '' then
      reset_group_candidates()
      root.stealing = true
      serve_all()
    elseif #others > 0 then
      local others = load_candidates_of(others, n, root.virtual)
      others.stealing = true
      serve(others)
      root.virtual = others.virtual
    end
    claims.stolen = #ids - assigned
  end

  -- Lets tenants whose rate gives way by now come back. One that has no limit any more, since the defaults have changed,
  -- is tidied away.
  function release_throttled()
    local freed = has_policies and call('ZRANGEBYSCORE', THROTTLED, '-inf', integer(shard.ms), 'LIMIT', 0, BATCH) or {}
    local waiting
    load_tenants(freed)
    unlimited, waiting = without_limits(freed)
    for _, name in ipairs(waiting) do arriving[#arriving + 1] = name end
  end

  -- A record that somebody deleted by hand: its task goes out all the same, and fails there by name.
  function substitute_record(name)
    load_counts({ name })
    local priority = 1
    while priority < CRITICAL and counts[name][priority] == 0 do priority = priority + 1 end
    return struct.pack(HEADER, LIVE, 0, priority, 1, shard.stamp, #name, name)
  end

  -- Chooses up to `n` tasks for a runtime. Returns them in the order of service, in lists beside each other: ids, their
  -- tenants, what these are charged; `reply` is each id and its record.
  function choose_tasks(runtime, n)
    local claims = { ids = {}, owners = {}, charged = {}, records = {}, reply = {}, stolen = 0 }
    if n > 0 then fill(claims, runtime, n) end
    for i, record in ipairs(read_records(claims.ids)) do
      record = record or substitute_record(claims.owners[i][NAME])
      claims.records[i] = record
      claims.reply[2 * i - 1], claims.reply[2 * i] = claims.ids[i], record
    end
    return claims
  end

  function write_claims(runtime, turn, claims)
    local marks = {}
    for i, id in ipairs(claims.ids) do
      local mark = pack_mark(turn, claims.records[i]:byte(3), claims.charged[i], claims.owners[i][NAME])
      marks[2 * i - 1], marks[2 * i] = id, mark
    end
    write_all('HSET', CLAIMS .. runtime, marks)
    write_all('ZREM', THROTTLED, unlimited)
    for name, t in pairs(tenants) do
      if t[TAKEN] > 0 and queues[name] then -- places may be alike
        write_all('ZREM', QUEUE .. name, t[HEAD], t[TAKEN])
      elseif t[TAKEN] > 0 then
        call('ZREMRANGEBYRANK', QUEUE .. name, 0, t[TAKEN] - 1)
      end
    end
    if claims.dedicated_time then call('HSET', HOMES, runtime, exact(claims.dedicated_time)) end
    if claims.stolen > 0 then call('HINCRBY', META, 'stolen', claims.stolen) end
  end
end
