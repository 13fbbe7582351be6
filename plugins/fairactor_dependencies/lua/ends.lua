-- What becomes of tasks that wait for others. Known are, in lists: `mine.sent`, tasks that are accepted here, and what
-- they wait for; `mine.ended`, tasks that have ended; `mine.gates`, gates that have; `mine.told`, messages of other shards;
-- `mine.rest`, what ends before have left to do; `mine.grown`, a task, and others for which it is to wait as well. A task that waits stands in 'waits'; 'of:' and a task, or 'gated:' and a
-- run, list who waits for it; 'got:' and a task has the results that it is to get.
--
-- An end is F finished, X failed, or C canceled; of what is canceled since another has failed, it is X as well. One that is
-- told twice changes nothing the second time: of each parent a task remembers what it has heard. Whom it concerns is
-- written before it and crossed out after it, so what breaks off is done again by the end itself.
if mine.sent or mine.ended or mine.gates or mine.told or mine.rest or mine.grown then
  local SOME = 500 -- tasks that are told of ends in one script; who has more leaves the rest to `take`
  local HERE, TOLD = 65535, 65534
  local WAITING = '>Bc0c1dI4I4I4Bc0' -- rule, gate, keep, how many are F, X and C, token; then a letter for each parent
  local ENTRY = '>HBI4' -- shard, whether it wants the result, place; then the task
  local MESSAGE = '>Hc1c1BI4Hc0Hc0Hc0' -- to, kind, letter, wants, place, task or run, parent, root; then the result
  local REST = '>c1Hc0' -- letter, root; then the result
  local OPEN, CLOSED, NEVER = 'o', 'c', 'n'
  local UNHEARD, UNHEARD_BYTE = '?', 63
  local REMEMBERED = 3600000 -- ms for which it is known how a gate has ended

  local budget = SOME
  local children, done = {}, {} -- task -> what it waits for, false where it does not; those that wait no more
  local entries, outbox, rest, crossed_out = {}, {}, {}, {} -- what is to be written
  local remote, work_is_left = false, false

  local function send_message(to, kind, letter, wants, place, id, parent, root, result)
    outbox[#outbox + 1] = struct.pack(MESSAGE, to, kind, letter, wants, place, #id, id, #parent, parent, #root, root)
      .. (result or '')
  end

  local function add_entry(key, shard_of_it, wants, place, id)
    entries[key] = entries[key] or {}
    table.insert(entries[key], struct.pack(ENTRY, shard_of_it, wants, place) .. id)
    remote = remote or shard_of_it ~= HERE
  end

  -- The result in the record of a task that has finished, JSON.
  local function result_in(record)
    local line = record and record:match('^[^\n]*', (select(7, struct.unpack(HEADER, record)))) or ''
    local _, from = line:find('"result":', 1, true)
    return from and line:sub(from + 1, (line:match('.*(),"started_at":') or #line) - 1) or 'null'
  end

  local function letter_of(record)
    local state, _, _, _, _, _, body = struct.unpack(HEADER, record)
    local upstream = state == CANCELED_STATE and record:sub(body):match('^{"error":{"type":"UpstreamFailed"')
    return upstream and DEAD_STATE or state
  end

  -- Tasks that wait

  local function read_children(ids)
    local unknown = {}
    for _, id in ipairs(ids) do
      if children[id] == nil then unknown[#unknown + 1], children[id] = id, false end
    end
    for i, packed in ipairs(read_all('HMGET', OWN .. 'waits', unknown)) do
      if packed then
        local child, at = { id = unknown[i], told = {}, got = {} }, nil
        child.rule, child.gate, child.keep, child.F, child.X, child.C, child.token, at = struct.unpack(WAITING, packed)
        child.heard = packed:sub(at)
        children[child.id] = child
      end
    end
  end

  local function pack_child(child)
    local places, pieces, at = {}, {}, 1
    for place in pairs(child.told) do places[#places + 1] = place end
    table.sort(places)
    for _, place in ipairs(places) do
      pieces[#pieces + 1], pieces[#pieces + 2] = child.heard:sub(at, place - 1), child.told[place]
      at = place + 1
    end
    return struct.pack(WAITING, #child.rule, child.rule, child.gate, child.keep, child.F, child.X, child.C, #child.token,
      child.token) .. table.concat(pieces) .. child.heard:sub(at)
  end

  -- Whether a task may run: true, false never any more, nil not yet; by how many have not ended, finished, failed, and were
  -- canceled.
  local rules = {
    all_success = function(open, _, failed, canceled)
      if failed + canceled > 0 then return false end
      if open == 0 then return true end
    end,
    all_done = function(open) if open == 0 then return true end end,
    one_success = function(open, finished)
      if finished > 0 then return true end
      if open == 0 then return false end
    end,
    one_failed = function(open, _, failed)
      if failed > 0 then return true end
      if open == 0 then return false end
    end,
    none_failed = function(open, _, failed)
      if failed > 0 then return false end
      if open == 0 then return true end
    end,
  }

  -- The record of a task, with results in place of the tokens in its arguments.
  local function filled(child)
    local record, got = held_record(child.id), child.got
    if child.token == '' or not record then return nil end
    local stored = not child.new and call('HGETALL', OWN .. 'got:' .. child.id) or {}
    for i = 1, #stored, 2 do got[tonumber(stored[i])] = stored[i + 1] end
    return (record:gsub('"' .. child.token .. ':(%w+)"', function(which)
      if which ~= 'all' and which ~= 'rest' then return got[tonumber(which)] or 'null' end
      local all = {}
      for i = which == 'all' and 1 or 2, #child.heard do all[#all + 1] = got[i] or 'null' end
      return '[' .. table.concat(all, ',') .. ']'
    end))
  end

  local WORDS = { F = 'finished', X = 'failed', C = 'was canceled' }
  mine.roots, mine.letters = mine.roots or {}, mine.letters or {}

  -- Cancels a task; `why` is the end that has decided.
  local function cancel_child(child, why)
    local letter = child.X > 0 and 'X' or 'C'
    local text = why.text
    if not text then
      text = 'it can run no more (' .. child.rule .. '): task ' .. why.id .. ' before it '
      if why.root == why.id then
        text = text .. WORDS[why.letter]
      else
        text = text .. 'was canceled, since task ' .. why.root .. ' ' .. WORDS[why.letter]
      end
    end
    mine.letters[child.id] = letter
    mine.roots[child.id] = why.letter ~= 'F' and why.root or child.id
    local kind = letter == 'X' and 'UpstreamFailed' or 'TaskCanceled'
    local outcome = '{"error":{"type":"' .. kind .. '","message":' .. cjson.encode(text) .. '}}'
    cancel_held(child.id, pack_cancel(child.keep, outcome))
  end

  local function wait_no_more(child)
    children[child.id] = false
    done[#done + 1] = child.id
  end

  local function judge(child, why)
    if child.gate == CLOSED then return end
    local open, may = #child.heard - child.F - child.X - child.C, true
    if child.gate == NEVER then
      may = false
    elseif #child.heard > 0 then
      may = rules[child.rule](open, child.F, child.X, child.C)
    end
    if may == nil then return end
    wait_no_more(child)
    if may then admit(child.id, filled(child)) else cancel_child(child, why) end
  end

  -- Tells a task that what stands at a place of what it waits for has ended; place 0 is the gate.
  local function tell(child, place, why, result)
    if place == 0 and child.gate == CLOSED then
      child.gate, child.changed = why.letter == 'F' and OPEN or NEVER, true
    elseif place > 0 and not child.told[place] and child.heard:byte(place) == UNHEARD_BYTE then
      child.told[place], child.got[place], child.changed = why.letter, result, true
      child[why.letter] = child[why.letter] + 1
    end
    judge(child, why)
  end

  -- Ends

  -- Tells those who wait for something of its end: {id, letter, root, record or result, key of the list, field of the rest}.
  local function spread(from)
    local listed = budget > 0 and call('LRANGE', from.key, 0, budget - 1) or {}
    local stored, ids = #listed, {}
    budget = budget - stored
    for _, entry in ipairs(entries[from.key] or {}) do listed[#listed + 1] = entry end
    entries[from.key] = nil
    for i, entry in ipairs(listed) do ids[i] = entry:sub(8) end
    read_children(ids)
    for i, entry in ipairs(listed) do
      local to, wants, place = struct.unpack(ENTRY, entry)
      local child, result = children[ids[i]], nil
      if wants == 1 and from.letter == 'F' and (child or to ~= HERE) then
        from.result = from.result or result_in(from.record)
        result = from.result
      end
      if to ~= HERE then
        send_message(to, 'e', from.letter, 0, place, ids[i], from.id, from.root, result)
      elseif child then
        tell(child, place, from, result)
      end
    end
    if budget > 0 and stored == 0 and not from.field then return end
    local more = call('LLEN', from.key) > stored
    crossed_out[#crossed_out + 1] = { from.key, stored, more, from.field }
    if more then
      work_is_left = true
      if from.letter == 'F' and not from.result then from.result = result_in(from.record) end
      rest[#rest + 1] = from.field or from.name
      rest[#rest + 1] = struct.pack(REST, from.letter, #from.root, from.root) .. (from.result or '')
    end
  end

  local function spread_gate(run, letter)
    spread({ id = run, letter = letter, root = run, result = '', key = OWN .. 'gated:' .. run, name = 'g' .. run,
      text = letter ~= 'F' and 'its run was not sent whole' or nil })
    for _, other in ipairs(call('SMEMBERS', OWN .. 'gate-to:' .. run)) do
      send_message(tonumber(other), 'g', letter, 0, 0, run, '', '')
    end
    last[#last + 1] = function()
      call('SET', OWN .. 'gate:' .. run, letter, 'PX', REMEMBERED)
      call('ZREM', OWN .. 'gates', run)
      call('DEL', OWN .. 'gate-to:' .. run)
    end
  end

  -- What came with a batch

  -- The records of the parents that are not of the batch itself, as far as they are here.
  local function read_parents()
    local ids, found = {}, {}
    for _, sent in ipairs(mine.sent) do
      for i, parent in ipairs(sent[2].parents or {}) do
        local at = sent[2].shards and sent[2].shards[i] or HERE
        if at == HERE and not mine.here[parent] then ids[#ids + 1] = parent end
      end
    end
    for i, record in ipairs(read_records(ids)) do found[ids[i]] = record end
    return found
  end

  local function wait_for_gate(child, run)
    local ended = run and call('GET', OWN .. 'gate:' .. run)
    if ended then
      child.gate = ended == 'F' and OPEN or NEVER
    elseif run then
      child.gate = CLOSED
      add_entry(OWN .. 'gated:' .. run, HERE, 0, 0, child.id)
    end
  end

  -- Has a task wait for one of this shard, or tells it how that has ended.
  local function wait_for(child, place, parent, record, wants)
    if (mine.here and mine.here[parent]) or (record and record:sub(1, 1) == LIVE) then
      add_entry(OWN .. 'of:' .. parent, HERE, wants, place, child.id)
    elseif record then
      local why = { id = parent, letter = letter_of(record), root = parent }
      tell(child, place, why, wants == 1 and why.letter == 'F' and result_in(record) or nil)
    else
      tell(child, place, { letter = 'C', root = parent, text = 'there is no task ' .. parent .. ' before it any more' })
    end
  end

  local function wait_for_parent(child, waits, found, place, parent)
    local at, wants = waits.shards and waits.shards[place] or HERE, child.wants[place] and 1 or 0
    if at == HERE then
      wait_for(child, place, parent, found[parent], wants)
    elseif at ~= TOLD then -- that one will tell by itself
      send_message(at, 's', ' ', wants, place, child.id, parent, tostring(waits.shard))
    end
  end

  local function grow(id, others)
    read_children({ id })
    local child, before = children[id], #(children[id] and children[id].heard or '')
    if before ~= 1 then return end
    mine.grown = nil
    child.heard, child.changed = child.heard .. string.rep(UNHEARD, #others), true
    for i, record in ipairs(read_records(others)) do
      if children[id] then wait_for(child, before + i, others[i], record, 1) end
    end
  end

  local function meet_sent()
    local found = read_parents()
    for _, sent in ipairs(mine.sent) do
      local id, waits = sent[1], sent[2]
      local parents = waits.parents or {}
      local child = { id = id, new = true, changed = true, rule = waits.rule or 'all_success', gate = OPEN, keep = waits.keep,
        F = 0, X = 0, C = 0, token = waits.token or '', heard = string.rep(UNHEARD, #parents), told = {}, got = {}, wants = {} }
      for _, place in ipairs(waits.wants or {}) do child.wants[place] = true end
      children[id] = child
      wait_for_gate(child, waits.gate)
      for place, parent in ipairs(parents) do
        if not children[id] then break end
        wait_for_parent(child, waits, found, place, parent)
      end
      if children[id] then judge(child, { letter = 'C', root = id, text = 'its run was not sent whole' }) end
    end
  end

  -- What other shards say

  -- A task of another shard wants to hear of a task here.
  local function subscribe(place, wants, id, parent, its_shard)
    local record = call('GET', TASK .. parent)
    if not readable(record) then
      send_message(its_shard, 'e', 'C', 0, place, id, parent, parent)
    elseif record:sub(1, 1) == LIVE then
      add_entry(OWN .. 'of:' .. parent, its_shard, wants, place, id)
    else
      local letter = letter_of(record)
      local result = wants == 1 and letter == 'F' and result_in(record)
      send_message(its_shard, 'e', letter, 0, place, id, parent, parent, result)
    end
  end

  local function hear(message)
    local _, kind, letter, wants, place, id, parent, root, at = struct.unpack(MESSAGE, message)
    if kind == 'g' then
      spread_gate(id, letter)
    elseif kind == 's' then
      subscribe(place, wants, id, parent, tonumber(root))
    else
      read_children({ id })
      local why = { id = parent, letter = letter, root = root }
      if children[id] then tell(children[id], place, why, at <= #message and message:sub(at) or nil) end
    end
  end

  if mine.sent then meet_sent() end
  if mine.grown then grow(mine.grown[1], mine.grown[2]) end
  for _, message in ipairs(mine.told or {}) do hear(message) end
  for _, gate in ipairs(mine.gates or {}) do spread_gate(gate[1], gate[2]) end
  for _, left in ipairs(mine.rest or {}) do
    local letter, root, at = struct.unpack(REST, left[2])
    local id, is_gate = left[1]:sub(2), left[1]:sub(1, 1) == 'g'
    spread({ id = id, letter = letter, root = root, result = left[2]:sub(at), field = left[1],
      key = OWN .. (is_gate and 'gated:' or 'of:') .. id,
      text = is_gate and letter ~= 'F' and 'its run was not sent whole' or nil })
  end
  local ended, n = mine.ended or {}, 1
  mine.ended = ended -- those that are canceled here come behind them
  while ended[n] do
    local id, letter, record = ended[n][1], ended[n][2], ended[n][3]
    if letter == CANCELED_STATE and not mine.letters[id] then -- it may have waited itself
      read_children({ id })
      if children[id] then wait_no_more(children[id]) end
    end
    spread({ id = id, letter = mine.letters[id] or letter, root = mine.roots[id] or id, record = record,
      key = OWN .. 'of:' .. id, name = 't' .. id })
    n = n + 1
  end

  later[#later + 1] = function()
    local waiting = {}
    for id, child in pairs(children) do
      if child and child.changed then
        waiting[#waiting + 1], waiting[#waiting + 2] = id, pack_child(child)
        for place, result in pairs(child.got) do call('HSET', OWN .. 'got:' .. id, place, result) end
      end
    end
    write_all('HSET', OWN .. 'waits', waiting)
    for key, list in pairs(entries) do write_all('RPUSH', key, list) end
    if remote then call('SET', OWN .. 'remote', '1') end
    for _, message in ipairs(outbox) do call('ZADD', OWN .. 'outbox', 'NX', integer(shard.ms), message) end
    write_all('HSET', OWN .. 'rest', rest)
  end
  last[#last + 1] = function()
    write_all('HDEL', OWN .. 'waits', done)
    for _, id in ipairs(done) do call('DEL', OWN .. 'got:' .. id) end
    for _, list in ipairs(crossed_out) do
      local key, stored, more, field = list[1], list[2], list[3], list[4]
      if more then call('LTRIM', key, stored, -1) else call('DEL', key) end
      if field and not more then call('HDEL', OWN .. 'rest', field) end
    end
    if work_is_left or #outbox > 0 then call('PUBLISH', EVENTS, 'p' .. SELF) end
  end
end
