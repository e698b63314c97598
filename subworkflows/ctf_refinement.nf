// CTF refinement: one job; where there are many tilt series, groups of them are worked on side by side before it,
// and it only puts together what they found, with the same result.
include { IN_GROUPS ; GATHERED } from './groups'
include { CTF_REFINE ; CTF_REFINE as CTF_REFINE_GROUP } from '../modules/relion/ctf_refine'

workflow CTF_REFINEMENT {
    take:
    inputs // [meta, name, settings] + series + [particle set, half maps, mask job, post-process job]

    main:
    sets = inputs.branch { row ->
        many: row[2].groups > 1
        few: true
    }
    IN_GROUPS(sets.many)
    CTF_REFINE_GROUP(IN_GROUPS.out.map { row -> row + [[]] })
    GATHERED(CTF_REFINE_GROUP.out.map { meta, job, _particles -> [meta, job] })
    CTF_REFINE(sets.few.map { row -> row + [[]] }.mix(sets.many.join(GATHERED.out)))

    emit:
    job = CTF_REFINE.out // [meta, job, particle set]
}
